service "erp" {
  vip "192.0.2.100/24" {}
  vip "192.0.2.101/24" { interface = "lo" }
  vip "192.0.2.102/24" { interface = "eth0:1" }
  vip "192.0.2.103/24" {
    interface   = ""
    keep_prefix = "yes"
  }
}
