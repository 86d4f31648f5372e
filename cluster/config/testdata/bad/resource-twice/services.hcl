service "erp" {
  process "erp" { command = ["/usr/local/bin/erp"] }
  exec "erp" {
    start  = ["/usr/local/bin/start"]
    stop   = ["/usr/local/bin/stop"]
    status = ["/usr/local/bin/status"]
  }
  vip "192.0.2.100/24" { interface = "eth0" }
  vip "192.0.2.100/25" { interface = "eth1" }
}
