# One connection, one line: `list`, or `add WHAT`. The entries live in the volume at /data.
read -r verb rest
case "$verb" in
  list) cat /data/entries 2>/dev/null ;;
  add) echo "$rest" >> /data/entries ;;
esac
exit 0
