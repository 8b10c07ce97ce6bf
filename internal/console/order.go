package console

import (
	"fmt"
	"strconv"
)

// Verb is what is to be done.
type Verb string

// The verbs.
const (
	Pause      Verb = "PAUSE"
	Resume     Verb = "RESUME"
	Disable    Verb = "DISABLE"
	Enable     Verb = "ENABLE"
	Reconnect  Verb = "RECONNECT"
	Kill       Verb = "KILL"
	KillClient Verb = "KILL_CLIENT"
	Reload     Verb = "RELOAD"
	Shutdown   Verb = "SHUTDOWN"
)

// Wait is what a SHUTDOWN waits for.
type Wait int

// What it may be.
const (
	WaitNobody  Wait = iota
	WaitServers      // connections to nodes: clients may finish their transactions
	WaitClients      // clients may stay as long as they like
)

// Order is what an administrator orders.
type Order struct {
	Verb     Verb
	Database string // "": all of them; never for Disable, Enable and Kill
	Client   uint32 // of KillClient
	Wait     Wait   // of Shutdown
}

// parseOrder understands an order.
func parseOrder(ws []word) (Order, error) {
	o := Order{Verb: Verb(ws[0].upper())}
	rest := ws[1:]
	switch o.Verb {
	case Pause, Resume, Reconnect, Disable, Enable, Kill:
		needs := o.Verb == Disable || o.Verb == Enable || o.Verb == Kill
		switch {
		case len(rest) == 0 && needs:
			return o, &Error{Code: codeSyntax, Message: "a database is required", Hint: fmt.Sprintf("For example: %s app", o.Verb)}
		case len(rest) > 1:
			return o, unknown(ws)
		case len(rest) == 1:
			o.Database = rest[0].text
			if o.Database == "" {
				return o, unknown(ws)
			}
		}
		return o, nil
	case KillClient:
		if len(rest) != 1 {
			return o, &Error{Code: codeSyntax, Message: "the id of a client is required", Hint: "SHOW CLIENTS has it in the column id."}
		}
		id, err := strconv.ParseUint(rest[0].text, 10, 32)
		if err != nil {
			return o, &Error{Code: codeSyntax, Message: fmt.Sprintf("invalid client id %q", rest[0].text), Hint: "SHOW CLIENTS has it in the column id."}
		}
		o.Client = uint32(id)
		return o, nil
	case Reload:
		if len(rest) == 0 {
			return o, nil
		}
	case Shutdown:
		switch {
		case len(rest) == 0:
			return o, nil
		case len(rest) == 1 && rest[0].upper() == "WAIT_FOR_SERVERS":
			o.Wait = WaitServers
			return o, nil
		case len(rest) == 1 && rest[0].upper() == "WAIT_FOR_CLIENTS":
			o.Wait = WaitClients
			return o, nil
		}
	}
	return o, unknown(ws)
}
