import RFB from "./novnc/core/rfb.js";

// The address holds a secret that is good once: it leaves the address bar, and the history, before it is used.
const page = new URL(window.location.href);
const line = new URLSearchParams((page.searchParams.get("path") || "").split("?")[1]);
const address = new URL(page.pathname, page);
address.protocol = "wss:";
address.search = new URLSearchParams({ token: line.get("token") || "" });
window.history.replaceState(null, "", window.location.pathname);

const state = document.getElementById("state");
const button = document.getElementById("ctrl-alt-del");
const socket = new WebSocket(address, ["binary"]);
const rfb = new RFB(document.getElementById("screen"), socket, { shared: true });
rfb.scaleViewport = true;

function over(why) {
  state.textContent = why;
  state.className = "over";
  button.disabled = true;
}

rfb.addEventListener("connect", () => {
  state.textContent = "connected";
  button.disabled = false;
  rfb.focus();
});
socket.addEventListener("close", (event) => over(event.reason || "The connection was lost: ask for a new address."));
button.addEventListener("click", () => {
  rfb.sendCtrlAltDel();
  rfb.focus();
});
