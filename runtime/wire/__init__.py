"""The wire: openpi's policy protocol, its client and its server."""
