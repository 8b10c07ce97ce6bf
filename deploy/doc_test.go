// Package deploy_test answers the question: does what stands in deploy fit the program? It reads
// the dashboard, the Prometheus rules and the scripts, and asks a real run of pgweir, scraped by
// a real Prometheus, whether every query returns data.
package deploy_test
