# Run by sh in the container, or on the machine, that has the folder:
#   place.sh used FOLDER NAME           says `used` if NAME in the folder has files
#   place.sh rdb FOLDER CHECK           stores the RDB file on standard input, checked by the program CHECK
#   place.sh uploads FOLDER STAMP       unpacks the tar of uploads on standard input, in the place of those that are there
#   place.sh commit FOLDER STAMP        puts the stored RDB file where the server reads it at its start
# What was there is renamed to NAME.replaced-STAMP.
set -eu
umask 027
what=$1
cd "$2"
replace() { # NEW NAME STAMP
  sync
  if [ -e "$2" ]; then mv "$2" "$2.replaced-$3"; fi
  mv "$1" "$2"
  sync
}
case $what in
  used)
    if [ -d "$3" ] && [ -n "$(ls -A "$3")" ]; then echo used; fi
    ;;
  rdb)
    rm -rf restoring
    mkdir restoring
    cat >restoring/appendonly.aof.1.base.rdb
    if ! "$3" restoring/appendonly.aof.1.base.rdb >restoring/check 2>&1; then
      grep -v -e '^\[info\]' -e '^\[offset 0\] Checking' restoring/check | tail -n 3 >&2 || true
      rm -rf restoring
      exit 1
    fi
    rm restoring/check
    # A dump.rdb beside `appendonly yes` is ignored: the server would start empty. It reads the base of its append-only files.
    echo 'file appendonly.aof.1.base.rdb seq 1 type b' >restoring/appendonly.aof.manifest
    ;;
  commit)
    replace restoring appendonlydir "$3"
    ;;
  uploads)
    rm -rf restoring
    mkdir restoring
    tar -x -f - -C restoring
    replace restoring darkroom-uploads "$3"
    ;;
esac
