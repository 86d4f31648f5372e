service "erp" {}
