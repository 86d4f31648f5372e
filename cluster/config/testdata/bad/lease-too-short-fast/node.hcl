node     = "a"
address  = "192.0.2.11"
peers    = ["192.0.2.11", "192.0.2.12", "192.0.2.13"]
insecure = true
profile = "fast"
timing { renew = "200ms" }
