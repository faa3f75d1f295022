#!/usr/bin/env bash
# After `import polars` (2.1.0) Ctrl-C does not end a wait of Python before the wait is over.
#
# polars sets a handler of SIGINT with the flag SA_RESTART when it is imported. Python's own handler has no such
# flag. With the flag the kernel resumes the call that the signal interrupts, so a lock, an event or a child
# process is waited for to its end, and KeyboardInterrupt comes only then. A wait without an end ignores Ctrl-C.
# `signal.siginterrupt(signal.SIGINT, True)` after the import takes the flag away.
#
# Output seen (SIGINT after 1 s, each wait 6 s long and without a time-out; seconds until KeyboardInterrupt):
#   Event.wait: 1 without polars, 6 with polars, 1 with polars and siginterrupt
#   child.wait: 1 without polars, 6 with polars, 1 with polars and siginterrupt
# Exits 0 while this is so and 1 if it changed. Linux.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q polars==2.1.0
cd "$work"
cat > seconds.py <<'PY'
import os, signal, subprocess, sys, threading, time

signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job of a shell inherits SIG_IGN
if sys.argv[1] != "without":
    import polars
if sys.argv[1] == "mended":
    signal.siginterrupt(signal.SIGINT, True)
process = os.getpid()
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(6)"], start_new_session=True)
subprocess.Popen([sys.executable, "-c", f"import os, time; time.sleep(1); os.kill({process}, 2)"])
event = threading.Event()
threading.Timer(6, event.set).start()
started = time.monotonic()
try:
    event.wait() if sys.argv[2] == "event" else child.wait()
except KeyboardInterrupt:
    pass
print("late" if time.monotonic() - started > 4 else "at once", f"{time.monotonic() - started:.0f} s")
PY
changed=0
for wait in event child; do
  for case in without:at with:late mended:at; do
    seen=$(venv/bin/python seconds.py "${case%%:*}" "$wait")
    echo "$wait, ${case%%:*} polars: $seen"
    [[ $seen == "${case##*:}"* ]] || changed=1
  done
done
exit $changed
