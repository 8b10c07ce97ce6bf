package pgtest

import (
	"bytes"
	"errors"
	"fmt"

	pgproto3 "github.com/jackc/pgproto3/v2"
)

// checkNode is a Check for RawClient built on pgproto3/v2: the message must be one that it can
// read, and what it says when asked to write the same must be the same bytes. It recovers the
// panic that is known of it (GO-2026-4518), which a server's message may cause.
func checkNode(m Message) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("pgproto3 panicked: %v", p)
		}
	}()
	if m.Type == 'v' || m.Type == 'K' && len(m.Body) != 8 {
		return nil // protocol 3.2, which pgproto3/v2 does not know
	}
	said, err := pgproto3.NewFrontend(pgproto3.NewChunkReader(bytes.NewReader(m.Bytes())), nil).Receive()
	if err != nil {
		return err
	}
	if m.Type == 'E' || m.Type == 'N' {
		return nil // it writes the fields in an order of its own
	}
	again, err := said.Encode(nil)
	if err != nil {
		return err
	}
	if !bytes.Equal(again, m.Bytes()) {
		return errors.New("pgproto3 writes it differently")
	}
	return nil
}
