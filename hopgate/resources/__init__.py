"""The custom resources of group `hopgate.dev` as frozen values, and the registry made of them. Pure."""
