service "erp" {
  takeover   = "fenced"
  nodes      = ["a", "b", "a", "c d"]
  priorities = { a = 100, d = 50, b = "high" }
  vip "192.0.2.100/24" { interface = "eth0" }
}
service "crm" {
  nodes = []
  vip "192.0.2.101/24" { interface = "eth0" }
}
service "bi" {
  priorities = ["a", "b"]
  failback   = 1
  vip "192.0.2.102/24" { interface = "eth0" }
}
