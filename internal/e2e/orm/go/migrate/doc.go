// Command migrate shows what golang-migrate does through a proxy, in front of an application on database/sql with lib/pq.
package main
