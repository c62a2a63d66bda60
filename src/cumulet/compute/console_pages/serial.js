"use strict";
// The address holds a secret that is good once: it leaves the address bar, and the history, before it is used.
const address = new URL(window.location.href);
address.protocol = "wss:";
window.history.replaceState(null, "", window.location.pathname);

const state = document.getElementById("state");
const terminal = new Terminal({ cols: 100, rows: 30, scrollback: 5000, cursorBlink: true });
terminal.open(document.getElementById("terminal"));

const socket = new WebSocket(address);
socket.binaryType = "arraybuffer";
const encoder = new TextEncoder();

socket.onopen = () => {
  state.textContent = "connected";
  terminal.focus();
};
socket.onmessage = (message) => terminal.write(new Uint8Array(message.data));
socket.onclose = (event) => {
  state.textContent = event.reason || "The connection was lost: ask for a new address.";
  state.className = "over";
};
terminal.onData((text) => {
  if (socket.readyState === WebSocket.OPEN) socket.send(encoder.encode(text));
});
