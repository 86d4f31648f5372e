node     = "a"
address  = "192.0.2.11"
peers    = []
insecure = true

