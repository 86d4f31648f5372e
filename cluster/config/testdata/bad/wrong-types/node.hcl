node     = 7
address  = ["192.0.2.11"]
peers    = "192.0.2.11"
insecure = "true"
port     = "7400"
hook_dirs = ["/a", 3]
timing {
  lease = 3
  gossip_suspicion = 2.5
}
