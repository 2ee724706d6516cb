"""The kernel of this machine: namespaces, links, nft, mounts, cgroups, processes."""
