service "erp" {
  exec "hooks" {
    start    = ["/usr/local/bin/start"]
    interval = "10"
    statuss  = ["/usr/local/bin/status"]
  }
}
