"""The user space of the tiny guest: one script, run as process 1."""

from __future__ import annotations

from pathlib import Path

from cumulet.image.tiny_ssh import MODULES as SSH_MODULES

RECORD_BYTES = 512
RECORD_AREA_OFFSET = 48 << 20
"""Where a guest asked to write (`disk_writer=1`) puts its records: beyond the image, within any flavor's disk."""
RECORD_COUNT = 4096

INIT = rf"""#!/bin/busybox sh
# The whole user space of the tiny guest. Settings are KEY=NUMBER lines of the user data on a config drive:
#   tick_ms=N        a line `tick <n> <server id>` every N ms (default 100, 0: none)
#   fill_mib=N       fill N MiB of memory with random bytes at start
#   dirty_mib_s=N    rewrite N MiB of memory a second
#   disk_writer=1    512-byte records `seq <n> <id>` on the disk from byte {RECORD_AREA_OFFSET}, fsynced, then printed
#   peer=N           ping the address of the first port's network that ends in N: `pong <count> <id>`, `silence ...`
#   serve_tcp=1      send back what comes to TCP port 7 (echo), throw away what comes to port 9 (discard)
#   talk_to=N        a line every 0.1 s over one TCP connection to port 7 of the address that ends in N: each that comes
#                    back is `echoed <count> <id>`, the end of the connection `talk ended <id>`
#   pour_to=N        zeros as fast as they go over TCP to port 9 of the address that ends in N
#   poweroff_after_s=N, reboot_after_s=N, panic_after_s=N
export PATH=/bin
/bin/busybox mkdir -p /proc /sys /dev /tmp /config /run /var /mnt
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs -o size=90% tmpfs /tmp
ln -s /run /var/run
while read -r module; do insmod "/modules/$module" 2>/dev/null; done < /modules/order
# By this name: whoever logs out hangs up the line, and only the console stays open then.
exec </dev/null >/dev/console 2>&1
id=$(cat /sys/class/dmi/id/product_uuid 2>/dev/null | tr A-Z a-z)
echo "cumulet-tiny: kernel $(uname -r), server $id"

tick_ms=100 fill_mib=0 dirty_mib_s=0 disk_writer=0 peer=0 serve_tcp=0 talk_to=0 pour_to=0
poweroff_after_s=0 reboot_after_s=0 panic_after_s=0
# By what is in it: in a rescue, or with further disks, it is not the second. Another server's may be copied on a disk.
told=/config/openstack/latest/meta_data.json
for device in /dev/sr0 /dev/vd?; do
  [ -b "$device" ] && mount -t iso9660 -o ro "$device" /config 2>/dev/null || continue
  grep -qi "\"uuid\": *\"$id" "$told" 2>/dev/null && break
  umount /config
done
name=$(sed -n 's/.*"hostname": *"\([^"]*\)".*/\1/p' "$told" 2>/dev/null)
[ -n "$name" ] && hostname "$name" 2>/dev/null && echo "cumulet-tiny: $name"
if [ -f /config/openstack/latest/user_data ]; then
  while IFS='=' read -r key value; do
    case "$value" in ''|*[!0-9]*) continue ;; esac
    case "$key" in
      tick_ms|fill_mib|dirty_mib_s|disk_writer|peer|serve_tcp|talk_to|pour_to) eval "$key=$value" ;;
      poweroff_after_s|reboot_after_s|panic_after_s) eval "$key=$value" ;;
    esac
  done < /config/openstack/latest/user_data
fi

cat > /tmp/power.sh <<'END'
#!/bin/sh
echo "cumulet-tiny: power button" > /dev/ttyS0
sync
poweroff -f
END
chmod +x /tmp/power.sh
mkdir -p /etc/acpi/PWRF && ln -s /tmp/power.sh /etc/acpi/PWRF/00000080
mkfifo /tmp/never /tmp/never2 /tmp/never3
acpid -f -c /etc/acpi -l /dev/null >/dev/null 2>&1 &

# Each port asks for its address, and says what it was told.
cat > /tmp/dhcp.sh <<'END'
#!/bin/sh
case "$1" in bound|renew) ;; *) exit 0 ;; esac
ifconfig "$interface" "$ip" netmask "$subnet" mtu "${{mtu:-1500}}"
set -- $staticroutes
while [ $# -ge 2 ]; do
  case "$2" in
    0.0.0.0) ip route replace "$1" dev "$interface" ;;
    *) ip route replace "$1" via "$2" dev "$interface" ;;
  esac
  shift 2
done
for server in $dns; do echo "nameserver $server"; done > /etc/resolv.conf
echo "cumulet-tiny: $interface has $ip" > /dev/ttyS0
[ "$interface" = eth0 ] && echo "$ip" > /tmp/address
END
chmod +x /tmp/dhcp.sh
ifconfig lo 127.0.0.1 up
# One that is plugged in later too; of one that is pulled out it says so.
(
  mkfifo /tmp/never5
  exec 7<>/tmp/never5
  mkdir /tmp/nics
  while :; do
    for device in /sys/class/net/eth*; do
      nic=${{device##*/}}
      [ -e "$device" ] && [ ! -e "/tmp/nics/$nic" ] || continue
      ifconfig "$nic" up
      udhcpc -f -i "$nic" -p "/run/udhcpc.$nic.pid" -s /tmp/dhcp.sh -O staticroutes -O mtu -t 10 -T 1 -A 1 \
        >/dev/null 2>&1 &
      echo $! > "/tmp/nics/$nic"
    done
    for known in /tmp/nics/*; do
      nic=${{known##*/}}
      [ -e "$known" ] && [ ! -e "/sys/class/net/$nic" ] || continue
      kill "$(cat "$known")" 2>/dev/null
      rm "$known"
      echo "cumulet-tiny: $nic is gone"
    done
    read -r -t 0.5 -u 7 nothing
  done
) &

# A server with a key pair is logged in to by SSH, with its key alone, as cumulet or root, who are the same. In /mnt are
# the files of the disk that it has started from: they outlast it, and snapshots have them.
key=$(sed -n 's/.*"public_keys": *{{"[^"]*": *"\([^"\\]*\).*/\1/p' "$told" 2>/dev/null)
[ -n "$key" ] && (
  for module in {" ".join(Path(module).name for module in SSH_MODULES)}; do insmod "/modules/$module" 2>/dev/null; done
  # In a rescue it may be another than the first.
  for disk in /dev/vd?; do
    mount -t vfat -o umask=022 "$disk" /mnt 2>/dev/null || continue
    [ -f /mnt/ssh.tgz ] && break
    umount /mnt
  done
  zcat /mnt/ssh.tgz | tar x -C /
  mkdir -p /dev/pts && mount -t devpts devpts /dev/pts
  for home in /root /home/cumulet; do
    mkdir -p -m 700 "$home" "$home/.ssh"
    echo "$key" > "$home/.ssh/authorized_keys"
  done
  # Of this server alone: another that is made from a snapshot of it has another.
  host_key=/mnt/$id.key
  [ -s "$host_key" ] || {{ dropbearkey -t ed25519 -f "$host_key" && sync; }} >/dev/null 2>&1
  dropbear -s -r "$host_key"
  echo "cumulet-tiny: SSH as cumulet, host key $(dropbearkey -y -f "$host_key" | sed -n 's/^Fingerprint: //p')"
) &

# QEMU's guest agent, as far as there is anything to ask of so small a guest. Between connections its port ends.
for port in /dev/vport*p1; do
  [ -c "$port" ] && (
    mkfifo /tmp/never7
    exec 8<>/tmp/never7 9<>"$port"
    while :; do
      if ! IFS= read -r line <&9; then
        read -r -t 0.1 -u 8 nothing
        continue
      fi
      case "$line" in
        *guest-sync-delimited*)
          number=${{line##*\"id\":}}
          printf '\377{{"return": %s}}\n' "${{number%%\}}*}}" >&9
          ;;
        *guest-set-user-password*)
          word=${{line##*\"password\":\"}}
          printf '%s' "${{word%%\"*}}" | base64 -d > /tmp/password
          printf '{{"return": {{}}}}\n' >&9
          echo "cumulet-tiny: another password"
          ;;
        *guest-fsfreeze-freeze*)
          : > /tmp/frozen
          sync
          echo "cumulet-tiny: at rest"
          printf '{{"return": 1}}\n' >&9
          ;;
        *guest-fsfreeze-thaw*)
          rm -f /tmp/frozen
          echo "cumulet-tiny: goes on"
          printf '{{"return": 1}}\n' >&9
          ;;
        *) printf '{{"error": {{"class": "CommandNotFound", "desc": "not here"}}}}\n' >&9 ;;
      esac
    done
  ) &
done

# Whoever presses Enter on the console may log in; meanwhile nothing else is printed there.
cat > /tmp/login.sh <<'END'
#!/bin/sh
stty sane
read -r nothing || exit 1
: > /tmp/session
trap 'rm -f /tmp/session' EXIT
echo "cumulet-tiny: log in as root; the password is the server's adminPass"
printf 'login: '
read -r name
stty -echo
printf 'Password: '
read -r word
stty echo
echo
known=$(cat /tmp/password 2>/dev/null)
[ -n "$known" ] ||
  known=$(sed -n 's/.*"admin_pass": *"\([^"]*\)".*/\1/p' /config/openstack/latest/meta_data.json 2>/dev/null)
# Nobody whose password is not known gets in: a drive that was not found tells none.
if [ "$name" = root ] && [ -n "$known" ] && [ "$word" = "$known" ]; then
  HOME=/ PS1='tiny# ' sh -i
  echo "cumulet-tiny: logged out"
else
  echo "Login incorrect"
fi
END
(
  mkfifo /tmp/never6
  exec 8<>/tmp/never6
  while :; do
    setsid -c sh /tmp/login.sh </dev/ttyS0 >/dev/ttyS0 2>&1
    read -r -t 0.2 -u 8 nothing
  done
) &

if [ "$peer" -gt 0 ]; then (
  mkfifo /tmp/never4
  exec 6<>/tmp/never4
  count=0
  while [ ! -s /tmp/address ]; do read -r -t 0.1 -u 6 nothing; done
  address=$(cat /tmp/address)
  while :; do
    if ping -c 1 -W 1 "${{address%.*}}.$peer" >/dev/null 2>&1; then
      count=$((count + 1))
      echo "pong $count $id"
    else
      echo "silence $count $id"
    fi
    read -r -t 0.05 -u 6 nothing
  done
) & fi

if [ "$serve_tcp" -gt 0 ]; then
  (while :; do nc -l -p 7 -e cat; done) &
  (while :; do nc -l -p 9 -e dd of=/dev/null bs=64k; done) 2>/dev/null &
fi

# Waits until the first port has its address, and says the one of its network that ends in $1.
neighbour() {{
  until [ -s /tmp/address ]; do usleep 100000; done
  address=$(cat /tmp/address)
  echo "${{address%.*}}.$1"
}}

if [ "$talk_to" -gt 0 ]; then (
  until [ -e /tmp/talked ]; do
    while :; do echo; usleep 100000; done | nc "$(neighbour "$talk_to")" 7 | (
      count=0
      while read -r line; do count=$((count + 1)); echo "echoed $count $id"; touch /tmp/talked; done
    )
    usleep 500000
  done
  echo "talk ended $id"
) & fi

if [ "$pour_to" -gt 0 ]; then
  (while :; do nc "$(neighbour "$pour_to")" 9 -e dd if=/dev/zero bs=64k; usleep 500000; done) 2>/dev/null &
fi

after() {{ [ "$1" -gt 0 ] && (sleep "$1"; echo "cumulet-tiny: $2 now"; sync; eval "$3") & }}
after "$poweroff_after_s" poweroff 'poweroff -f'
after "$reboot_after_s" reboot 'reboot -f'
after "$panic_after_s" panic 'echo 1 > /proc/sys/kernel/sysrq; echo c > /proc/sysrq-trigger'

[ "$fill_mib" -gt 0 ] && dd if=/dev/urandom of=/tmp/fill bs=1M count="$fill_mib" 2>/dev/null

if [ "$dirty_mib_s" -gt 0 ]; then (
  dd if=/dev/urandom of=/tmp/source bs=64k count=16 2>/dev/null
  exec 4<>/tmp/never2
  block=0
  # Eight times a second, an eighth of the rate, over a window of 32 MiB.
  while :; do
    todo=$((dirty_mib_s * 2))
    while [ $todo -gt 0 ]; do
      part=$((todo < 16 ? todo : 16))
      dd if=/tmp/source of=/tmp/dirty bs=64k count=$part seek=$block conv=notrunc 2>/dev/null
      block=$(((block + part) % 496))
      todo=$((todo - part))
    done
    read -r -t 0.125 -u 4 nothing
  done
) & fi

if [ "$disk_writer" -gt 0 ]; then (
  exec 5<>/tmp/never3
  seq=0
  while :; do
    while [ -e /tmp/frozen ]; do read -r -t 0.02 -u 5 nothing; done
    seq=$((seq + 1))
    place=$(({RECORD_AREA_OFFSET // RECORD_BYTES} + seq % {RECORD_COUNT}))
    printf '%-511s\n' "seq $seq $id" |
      dd of=/dev/vda bs={RECORD_BYTES} count=1 seek=$place conv=notrunc,fsync 2>/dev/null && echo "seq $seq"
    read -r -t 0.02 -u 5 nothing
  done
) & fi

exec 3<>/tmp/never
tick=0
if [ "$tick_ms" -gt 0 ]; then
  pause=$(printf '0.%03d' $((tick_ms < 999 ? tick_ms : 999)))
  while :; do
    tick=$((tick + 1))
    [ -e /tmp/session ] || echo "tick $tick $id"
    read -r -t "$pause" -u 3 nothing
  done
fi
while :; do read -r -u 3 nothing; done
"""
