#!/bin/sh
# CNI plugin, first in the chain: no duplicate address detection in a pod's namespace (RFC 4862, 5.4).
# host-local gives every address once, and ptp waits for the detection to end: 1 to 2 s of every pod's start.
case $CNI_COMMAND in
ADD)
    # Without IPv6 in the kernel there is nothing to switch off.
    if [ -e /proc/sys/net/ipv6 ]; then
        nsenter --net="$CNI_NETNS" sh -c 'cd /proc/sys/net/ipv6/conf; echo 0 >all/accept_dad; echo 0 >default/accept_dad' >&2
    fi
    echo '{"cniVersion":"0.4.0"}'
    ;;
VERSION) echo '{"cniVersion":"0.4.0","supportedVersions":["0.3.0","0.3.1","0.4.0"]}' ;;
esac
