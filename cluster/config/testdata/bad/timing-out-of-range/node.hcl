node     = "a"
address  = "192.0.2.11"
peers    = ["192.0.2.11", "192.0.2.12", "192.0.2.13"]
insecure = true
timing {
  lease            = "50ms"
  renew            = "1ms"
  heartbeat        = "20ms"
  disk_limit       = "1h"
  gossip_suspicion = 1
}
