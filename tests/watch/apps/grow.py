# Not Node: memory that is touched and kept.
import time

kept = []
while True:
    kept.append(bytearray(b"x" * 200_000))
    time.sleep(0.1)
