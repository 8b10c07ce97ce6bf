<?php
// A self-checking program for PHP's PDO and pgsql extensions; see ../README.md.
declare(strict_types=1);

function ok(string $what): void { echo "ok $what\n"; }

function check(mixed $want, mixed $got): void {
    if ($want !== $got) {
        throw new Exception('wanted ' . var_export($want, true) . ', got ' . var_export($got, true));
    }
}

// fails runs a body that must fail with that SQLSTATE.
function fails(string $state, callable $body): void {
    try {
        $body();
    } catch (PDOException $e) {
        check($state, $e->errorInfo[0] ?? null);
        return;
    }
    throw new Exception("no error came, wanted $state");
}

function connect(array $options = []): PDO {
    $dsn = sprintf('pgsql:host=%s;port=%s;dbname=%s;sslmode=disable', getenv('PGHOST'), getenv('PGPORT'), getenv('PGDATABASE'));
    return new PDO($dsn, getenv('PGUSER'), getenv('PGPASSWORD'), $options + [PDO::ATTR_ERRMODE => PDO::ERRMODE_EXCEPTION]);
}

function one(PDO $c, string $sql): mixed { return $c->query($sql)->fetchColumn(); }

// prepared: PDO prepares on the server and sends DEALLOCATE as SQL when a statement goes; or it does neither.
function prepared(): void {
    $ways = [
        [],
        [PDO::ATTR_EMULATE_PREPARES => true],
        [PDO::PGSQL_ATTR_DISABLE_PREPARES => true],
    ];
    foreach ($ways as $options) {
        $c = connect($options);
        $c->exec('DROP TABLE IF EXISTS php_t; CREATE TABLE php_t (id int PRIMARY KEY, v text)');
        for ($round = 0; $round < 3; $round++) {
            $ins = $c->prepare('INSERT INTO php_t VALUES (?, ?)');
            $sel = $c->prepare('SELECT v FROM php_t WHERE id = :id');
            for ($i = 0; $i < 10; $i++) {
                $ins->execute([$round * 10 + $i, "it's $i"]);
                $sel->execute(['id' => $round * 10 + $i]);
                check("it's $i", $sel->fetchColumn());
            }
            unset($ins, $sel);
        }
        check(0, one($c, "SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE 'SELECT v FROM php_t%'"));
        fails('23505', fn () => $c->prepare('INSERT INTO php_t VALUES (?, ?)')->execute([1, 'again']));
        fails('42P01', fn () => $c->prepare('SELECT * FROM nope')->execute());
    }
    ok('prepared statements in three ways');
}

// ids: each connection has its own lastval and currval, however many share one to the server.
function ids(): void {
    $a = connect();
    $b = connect();
    $a->exec('DROP TABLE IF EXISTS php_ids; CREATE TABLE php_ids (id bigserial PRIMARY KEY, who text)');
    for ($i = 1; $i <= 20; $i += 2) {
        $a->prepare('INSERT INTO php_ids (who) VALUES (?)')->execute(['a']);
        $b->prepare('INSERT INTO php_ids (who) VALUES (?)')->execute(['b']);
        check((string) $i, $a->lastInsertId());
        check((string) ($i + 1), $b->lastInsertId());
        check((string) $i, $a->lastInsertId('php_ids_id_seq'));
    }
    ok('lastInsertId');
}

function transactions(): void {
    $c = connect();
    $c->beginTransaction();
    check(true, $c->inTransaction());
    $c->exec("INSERT INTO php_t VALUES (100, 'gone')");
    $c->rollBack();
    check(0, one($c, 'SELECT count(*) FROM php_t WHERE id = 100'));
    $c->beginTransaction();
    $c->exec("INSERT INTO php_t VALUES (101, 'kept')");
    $c->exec('SAVEPOINT s');
    fails('22012', fn () => $c->query('SELECT 1/0'));
    fails('25P02', fn () => $c->query('SELECT 1'));
    $c->exec('ROLLBACK TO SAVEPOINT s');
    $c->commit();
    check(false, $c->inTransaction());
    check('kept', one($c, 'SELECT v FROM php_t WHERE id = 101'));
    ok('transactions and errors');
}

function cursors(): void {
    $c = connect();
    $c->beginTransaction();
    $s = $c->prepare('SELECT g FROM generate_series(1, 100) g', [PDO::ATTR_CURSOR => PDO::CURSOR_SCROLL]);
    $s->execute();
    check(1, $s->fetch(PDO::FETCH_NUM, PDO::FETCH_ORI_FIRST)[0]);
    check(100, $s->fetch(PDO::FETCH_NUM, PDO::FETCH_ORI_LAST)[0]);
    check(99, $s->fetch(PDO::FETCH_NUM, PDO::FETCH_ORI_PRIOR)[0]);
    unset($s);
    $c->commit();
    ok('scrollable cursors');
}

function copies(): void {
    $c = connect();
    $c->exec('DROP TABLE IF EXISTS php_copy; CREATE TABLE php_copy (id int, v text)');
    $rows = array_map(fn ($i) => "$i\tvalue $i", range(1, 5000));
    check(true, $c->pgsqlCopyFromArray('php_copy', $rows));
    check($rows, array_map('rtrim', $c->pgsqlCopyToArray('php_copy')));
    fails('22P02', fn () => $c->pgsqlCopyFromArray('php_copy', ["x\ty"]));
    check(5000, one($c, 'SELECT count(*) FROM php_copy'));
    ok('COPY both ways');
}

function listen(): void {
    $a = connect();
    $b = connect();
    $a->exec('LISTEN php_channel');
    $b->exec("NOTIFY php_channel, 'hello'");
    $n = $a->pgsqlGetNotify(PDO::FETCH_ASSOC, 10000);
    check(['php_channel', 'hello', $b->pgsqlGetPid()], [$n['message'], $n['payload'], $n['pid']]);
    ok('LISTEN');
}

// objects are large ones, which libpq reads and writes by the protocol's function calls.
function objects(): void {
    $c = connect();
    $c->beginTransaction();
    $oid = $c->pgsqlLOBCreate();
    $out = $c->pgsqlLOBOpen($oid, 'w');
    $bytes = random_bytes(300000);
    fwrite($out, $bytes);
    fclose($out);
    $c->commit();
    $c->beginTransaction();
    $in = $c->pgsqlLOBOpen($oid, 'r');
    check(md5($bytes), md5(stream_get_contents($in)));
    fclose($in);
    check(true, $c->pgsqlLOBUnlink($oid));
    $c->commit();
    ok('large objects');
}

// classic is the pgsql extension: asynchronous queries, cancel, prepared statements, and connections that outlive a request.
function classic(): void {
    $dsn = sprintf(
        "host=%s port=%s dbname=%s user=%s password='%s' sslmode=disable",
        getenv('PGHOST'), getenv('PGPORT'), getenv('PGDATABASE'), getenv('PGUSER'), getenv('PGPASSWORD')
    );
    $c = pg_pconnect($dsn);
    pg_prepare($c, 'mine', 'SELECT $1::int + 1');
    check('8', pg_fetch_result(pg_execute($c, 'mine', [7]), 0, 0));
    check('it', pg_fetch_result(pg_query_params($c, 'SELECT $1::text', ['it']), 0, 0));
    pg_send_query($c, 'SELECT pg_advisory_xact_lock(7101), pg_sleep(30)');
    $watch = connect();
    while (one($watch, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 7101") === 0); // until it runs
    $began = microtime(true);
    check(true, pg_cancel_query($c));
    check(true, microtime(true) - $began < 10);
    check(['1', '2'], array_map(fn ($r) => pg_fetch_result($r, 0, 0), several($c, 'SELECT 1; SELECT 2')));
    check(true, pg_copy_from($c, 'php_copy', ["9001\tnew\n"]));
    check('new', pg_fetch_result(pg_query($c, 'SELECT v FROM php_copy WHERE id = 9001'), 0, 0));
    check(PGSQL_TRANSACTION_IDLE, pg_transaction_status($c));
    pg_query($c, 'SET work_mem = 12345');
    check('12345kB', pg_fetch_result(pg_query($c, 'SHOW work_mem'), 0, 0));
    check(true, pg_ping($c));
    ok('the pgsql extension');
}

// several is the results of a string with several statements.
function several($c, string $sql): array {
    pg_send_query($c, $sql);
    $all = [];
    while ($r = pg_get_result($c)) {
        $all[] = $r;
    }
    return $all;
}

function large(): void {
    $c = connect();
    $v = str_repeat('x', 3000000);
    $s = $c->prepare('SELECT ?::text');
    $s->execute([$v]);
    check(md5($v), md5($s->fetchColumn()));
    ok('large values');
}

prepared();
ids();
transactions();
cursors();
copies();
listen();
objects();
classic();
large();
