node     = "a"
address  = "192.0.2.11"
peers    = ["192.0.2.11", "192.0.2.12", "192.0.2.13"]
insecure = true
timing {
  heartbeat      = "300ms"
  election       = "200ms"
  leader_lease   = "400ms"
  commit         = "200ms"
  disk_limit     = "150ms"
  gossip_probe   = "100ms"
  gossip_timeout = "100ms"
}
