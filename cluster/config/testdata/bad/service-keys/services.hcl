service "erp" {
  takover = "lease"
  fallback = false
  vip "192.0.2.100/24" { interfaces = "eth0" }
  proces "erp" { command = ["/usr/bin/erp"] }
}
