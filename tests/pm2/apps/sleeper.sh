# No Node at all.
while :; do sleep 3600; done
