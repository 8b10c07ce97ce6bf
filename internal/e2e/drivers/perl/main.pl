#!/usr/bin/perl
# A self-checking program for Perl's DBD::Pg; see ../README.md.
use strict;
use warnings;
use DBI;
use DBD::Pg qw(:pg_types :async);

sub ok { print "ok $_[0]\n"; return }

sub check {
    my ($want, $got) = @_;
    die "wanted $want, got " . ($got // 'undef') . ' at line ' . (caller)[2] . "\n" if !defined $got || $want ne $got;
    return;
}

# fails runs a body that must fail with that SQLSTATE.
sub fails {
    my ($c, $state, $body) = @_;
    die "no error came, wanted $state\n" if eval { $body->(); 1 };
    check($state, $c->state);
    return;
}

sub connected {
    my $dsn = "dbi:Pg:host=$ENV{PGHOST};port=$ENV{PGPORT};dbname=$ENV{PGDATABASE};sslmode=disable";
    return DBI->connect($dsn, $ENV{PGUSER}, $ENV{PGPASSWORD}, {RaiseError => 1, PrintError => 0, AutoCommit => 1, @_});
}

sub one { my ($c, $sql, @args) = @_; return ($c->selectrow_array($sql, undef, @args))[0] }

# DBD::Pg prepares on the server from the second execution on, and sends DEALLOCATE as SQL when a statement goes.
sub prepared {
    my $c = connected();
    $c->do('DROP TABLE IF EXISTS perl_t');
    $c->do('CREATE TABLE perl_t (id int PRIMARY KEY, v text, b bytea, a int[])');
    for my $round (0 .. 2) {
        my $ins = $c->prepare('INSERT INTO perl_t VALUES (?, ?, ?, ?)');
        $ins->bind_param(3, undef, {pg_type => PG_BYTEA});
        my $sel = $c->prepare('SELECT v, b, a FROM perl_t WHERE id = ?');
        for my $i (0 .. 9) {
            my $id = $round * 10 + $i;
            $ins->execute($id, "it's $id", "\0\1\\$i", [$i, $id]);
            $sel->execute($id);
            my ($v, $b, $a) = $sel->fetchrow_array;
            check("it's $id", $v);
            check("\0\1\\$i", $b);
            check("$i,$id", join ',', @$a);
            $sel->finish;
        }
    }
    check(0, one($c, q{SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE 'SELECT v, b, a FROM perl_t%'}));
    fails($c, '23505', sub { $c->do('INSERT INTO perl_t VALUES (?)', undef, 1) });
    fails($c, '42P01', sub { $c->do('SELECT * FROM nope') });
    ok('prepared statements and types');
    return;
}

sub ids {
    my ($a, $b) = (connected(), connected());
    $a->do('DROP TABLE IF EXISTS perl_ids');
    $a->do('CREATE TABLE perl_ids (id serial PRIMARY KEY, who text)');
    for my $i (0 .. 9) {
        $a->do(q{INSERT INTO perl_ids (who) VALUES ('a')});
        $b->do(q{INSERT INTO perl_ids (who) VALUES ('b')});
        check(2 * $i + 1, $a->last_insert_id(undef, undef, 'perl_ids', undef));
        check(2 * $i + 2, $b->last_insert_id(undef, undef, 'perl_ids', undef));
    }
    ok('last_insert_id');
    return;
}

sub transactions {
    my $c = connected(AutoCommit => 0);
    $c->do(q{INSERT INTO perl_t (id, v) VALUES (100, 'gone')});
    $c->rollback;
    check(0, one($c, 'SELECT count(*) FROM perl_t WHERE id = 100'));
    $c->do(q{INSERT INTO perl_t (id, v) VALUES (101, 'kept')});
    $c->pg_savepoint('s');
    fails($c, '22012', sub { $c->do('SELECT 1/0') });
    fails($c, '25P02', sub { $c->do('SELECT 1') });
    $c->pg_rollback_to('s');
    $c->commit;
    check('kept', one($c, 'SELECT v FROM perl_t WHERE id = 101'));
    $c->commit;
    $c->disconnect;
    ok('transactions and errors');
    return;
}

sub copies {
    my $c = connected();
    $c->do('DROP TABLE IF EXISTS perl_copy');
    $c->do('CREATE TABLE perl_copy (id int, v text)');
    $c->do('COPY perl_copy FROM STDIN');
    $c->pg_putcopydata("$_\tvalue $_\n") for 1 .. 5000;
    $c->pg_putcopyend;
    $c->do('COPY (SELECT * FROM perl_copy ORDER BY id) TO STDOUT');
    my ($n, $row) = (0, '');
    $n++ while $c->pg_getcopydata($row) >= 0;
    check(5000, $n);
    $c->do('COPY perl_copy FROM STDIN');
    $c->pg_putcopydata("x\ty\n");
    fails($c, '22P02', sub { $c->pg_putcopyend or die });
    check(5000, one($c, 'SELECT count(*) FROM perl_copy'));
    ok('COPY both ways');
    return;
}

sub listen_ {
    my ($a, $b) = (connected(), connected());
    $a->do('LISTEN perl_channel');
    $b->do(q{NOTIFY perl_channel, 'hello'});
    my $end = time + 10;
    my $n;
    until ($n = $a->pg_notifies) { die "no notification\n" if time > $end; $a->ping }
    check("perl_channel $b->{pg_pid} hello", join ' ', @$n);
    ok('LISTEN');
    return;
}

sub asynchronous {
    my $c = connected();
    $c->do('SELECT pg_sleep(0.05), 7', {pg_async => PG_ASYNC});
    1 until $c->pg_ready;
    check(1, $c->pg_result);
    my $watch = connected();
    $c->do('SELECT pg_advisory_xact_lock(7102), pg_sleep(30)', {pg_async => PG_ASYNC});
    until (one($watch, q{SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 7102})) { }    # it runs
    my $began = time;
    $c->pg_cancel;
    die "the cancel came late\n" if time - $began > 10;
    check(5, one($c, 'SELECT ?::int', 5));
    ok('asynchronous queries and cancel');
    return;
}

# Large objects are read and written by the protocol's function calls.
sub objects {
    my $c = connected(AutoCommit => 0);
    my $oid = $c->pg_lo_creat($c->{pg_INV_WRITE} | $c->{pg_INV_READ});
    my $fd = $c->pg_lo_open($oid, $c->{pg_INV_WRITE});
    my $bytes = join '', map { chr($_ % 251) } 1 .. 200_000;
    check(length $bytes, $c->pg_lo_write($fd, $bytes, length $bytes));
    $c->pg_lo_close($fd);
    $c->commit;
    $fd = $c->pg_lo_open($oid, $c->{pg_INV_READ});
    my $got = '';
    check(length $bytes, $c->pg_lo_read($fd, $got, length $bytes));
    die "other bytes came back\n" if $got ne $bytes;
    $c->pg_lo_close($fd);
    $c->pg_lo_unlink($oid);
    $c->commit;
    $c->disconnect;
    ok('large objects');
    return;
}

sub large {
    my $c = connected();
    my $v = 'x' x 3_000_000;
    check($v, one($c, 'SELECT ?::text', $v));
    ok('large values');
    return;
}

prepared();
ids();
transactions();
copies();
listen_();
asynchronous();
objects();
large();
