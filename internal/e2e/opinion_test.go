package e2e

import (
	"bytes"
	"fmt"

	"github.com/jackc/pgproto3/v2"

	"pgweir/internal/pgtest"
)

// secondOpinion returns a check for raw clients: every message must also be understood by another
// codec. What that one does not know (the long secrets of protocol 3.2) is left out, and its known
// panic counts as no opinion.
func secondOpinion() func(pgtest.Message) error {
	return func(m pgtest.Message) (err error) {
		switch {
		case m.Type == 'v', m.Type == 'K' && len(m.Body) != 8, m.Type == 'W', len(m.Body) > 1<<20:
			return nil
		}
		defer func() {
			if recover() != nil {
				err = nil
			}
		}()
		f := pgproto3.NewFrontend(pgproto3.NewChunkReader(bytes.NewReader(m.Bytes())), nil)
		if _, err := f.Receive(); err != nil {
			return fmt.Errorf("the second codec: %w", err)
		}
		return nil
	}
}
