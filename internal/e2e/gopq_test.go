package e2e

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lib/pq"
)

// pqState fails the test unless the error is the server's with that SQLSTATE.
func pqState(t testing.TB, err error, state string) {
	t.Helper()
	var pe *pq.Error
	if !errors.As(err, &pe) || string(pe.Code) != state {
		t.Errorf("wanted SQLSTATE %s, got %v", state, err)
	}
}

// TestPq is what a program that uses lib/pq through database/sql relies on.
func TestPq(t *testing.T) {
	eachPlace(t, func(t *testing.T, at place) {
		db, err := sql.Open("postgres", at.goDSN())
		must(t, err)
		t.Cleanup(func() { must(t, db.Close()) })
		db.SetMaxOpenConns(6)
		_, err = db.Exec("DROP TABLE IF EXISTS pq_t; CREATE TABLE pq_t (id int PRIMARY KEY, v text)")
		must(t, err)
		t.Run("prepared", func(t *testing.T) { pqPrepared(t, db) })
		t.Run("pool", func(t *testing.T) { pqPool(t, db) })
		t.Run("copy", func(t *testing.T) { pqCopy(t, db) })
		t.Run("listen", func(t *testing.T) { pqListen(t, at, db) })
		t.Run("cancel", func(t *testing.T) { pqCancel(t, db) })
		t.Run("large", func(t *testing.T) { pqLarge(t, db) })
		t.Run("recovery", func(t *testing.T) { pqRecovery(t, db) })
	})
}

// pqPrepared uses statements that are prepared on whichever connection runs them.
func pqPrepared(t *testing.T, db *sql.DB) {
	ins, err := db.Prepare("INSERT INTO pq_t VALUES ($1, $2)")
	must(t, err)
	defer ins.Close()
	sel, err := db.Prepare("SELECT v FROM pq_t WHERE id = $1")
	must(t, err)
	defer sel.Close()
	for i := range 50 {
		_, err := ins.Exec(i, fmt.Sprint("v", i))
		must(t, err)
		var v string
		must(t, sel.QueryRow(i).Scan(&v))
		if v != fmt.Sprint("v", i) {
			t.Fatalf("row %d holds %q", i, v)
		}
	}
}

// pqPool writes on one connection of a pool and reads on another: every row that a write was
// acknowledged for must be there.
func pqPool(t *testing.T, db *sql.DB) {
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 25 {
				id := 1000 + g*100 + i
				if _, err := db.Exec("INSERT INTO pq_t VALUES ($1, 'pool')", id); err != nil {
					t.Error(err)
					return
				}
				var n int
				if err := db.QueryRow("SELECT count(*) FROM pq_t WHERE id = $1", id).Scan(&n); err != nil || n != 1 {
					t.Errorf("%d rows of %d right after its insert: %v", n, id, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// pqCopy copies in with the driver's own way.
func pqCopy(t *testing.T, db *sql.DB) {
	tx, err := db.Begin()
	must(t, err)
	in, err := tx.Prepare("COPY pq_t (id, v) FROM STDIN")
	must(t, err)
	for i := range 3000 {
		_, err := in.Exec(5000+i, strings.Repeat("x", 50))
		must(t, err)
	}
	_, err = in.Exec()
	must(t, err)
	must(t, in.Close())
	must(t, tx.Commit())
	var n int
	must(t, db.QueryRow("SELECT count(*) FROM pq_t WHERE id >= 5000").Scan(&n))
	if n != 3000 {
		t.Errorf("%d rows", n)
	}
}

// pqListen uses the driver's listener, which reconnects by itself.
func pqListen(t *testing.T, at place, db *sql.DB) {
	l := pq.NewListener(at.goDSN(), 100*time.Millisecond, time.Second, nil)
	defer l.Close()
	must(t, l.Listen("pq_ch"))
	_, err := db.Exec("SELECT pg_notify('pq_ch', 'hello')")
	must(t, err)
	timer := time.NewTimer(30 * time.Second)
	defer timer.Stop()
	for {
		select {
		case n := <-l.Notify:
			if n == nil {
				continue // the driver says that it has reconnected
			}
			if n.Extra != "hello" {
				t.Errorf("heard %q", n.Extra)
			}
			must(t, l.Ping())
			return
		case <-timer.C:
			t.Fatal("nothing was heard")
		}
	}
}

// pqCancel ends a statement with its context.
func pqCancel(t *testing.T, db *sql.DB) {
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	began := time.Now()
	_, err := db.ExecContext(ctx, "SELECT pg_sleep(60)")
	if err == nil {
		t.Error("it was not cancelled")
	}
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("the cancel took %v", took)
	}
	var n int
	must(t, db.QueryRow("SELECT 1").Scan(&n))
}

// pqLarge moves large rows and many rows.
func pqLarge(t *testing.T, db *sql.DB) {
	text := strings.Repeat("0123456789abcdef", 1<<20)
	_, err := db.Exec("INSERT INTO pq_t VALUES (90000, $1)", text)
	must(t, err)
	var got string
	must(t, db.QueryRow("SELECT v FROM pq_t WHERE id = 90000").Scan(&got))
	if got != text {
		t.Errorf("%d bytes came back", len(got))
	}
	rows, err := db.Query("SELECT i, repeat('x', 1000) FROM generate_series(1, 20000) i")
	must(t, err)
	defer rows.Close()
	n := 0
	for rows.Next() {
		n++
	}
	must(t, rows.Err())
	if n != 20000 {
		t.Errorf("%d rows", n)
	}
}

// pqRecovery goes on after errors.
func pqRecovery(t *testing.T, db *sql.DB) {
	_, err := db.Exec("INSERT INTO pq_t VALUES (1, 'again')")
	pqState(t, err, "23505")
	tx, err := db.Begin()
	must(t, err)
	_, err = tx.Exec("SAVEPOINT s")
	must(t, err)
	_, err = tx.Exec("SELECT 1/0")
	pqState(t, err, "22012")
	_, err = tx.Exec("SELECT 1")
	pqState(t, err, "25P02")
	_, err = tx.Exec("ROLLBACK TO s")
	must(t, err)
	_, err = tx.Exec("INSERT INTO pq_t VALUES (91000, 'tx')")
	must(t, err)
	must(t, tx.Commit())
	ro, err := db.BeginTx(t.Context(), &sql.TxOptions{ReadOnly: true, Isolation: sql.LevelRepeatableRead})
	must(t, err)
	var n int
	must(t, ro.QueryRow("SELECT count(*) FROM pq_t WHERE v = 'tx'").Scan(&n))
	if n != 1 {
		t.Errorf("%d rows", n)
	}
	_, err = ro.Exec("DELETE FROM pq_t")
	pqState(t, err, "25006")
	must(t, ro.Rollback())
}
