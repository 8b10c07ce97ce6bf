// Package pgwire answers: what do these bytes of PostgreSQL's protocol say, and which bytes
// say this?
//
// It knows version 3 of the protocol (3.0 and 3.2) as the chapter "Frontend/Backend
// Protocol" of PostgreSQL's documentation describes it, and where that is silent does what the
// server's own sources do. It reads and writes no socket but through a Link, which waits without a
// reader in a Lot, starts no goroutine, and keeps nothing between two calls.
//
//	bytes of a connection
//	  │
//	  ├─ before the login ── LooksLikeTLS, StartupLength, ParseStartup, ParseOptions
//	  │
//	  └─ after it ────────── ParseHeader → one frame: type, length, body
//	                                │
//	                                ├─ forwarded as it is: nearly always
//	                                └─ looked into: ParseQuery, ParseParse, ParseBind, … (a view)
//
// A view is a struct of slices of the body that it was made from: nothing is copied and
// nothing is allocated, and the view is valid as long as the bytes it came from. Whoever keeps
// a part of it copies that part.
//
// A builder is a function AppendX(dst, …) that puts a whole message behind dst and returns the
// longer slice, as the built-in append does. A text with a NUL byte inside is cut there, since
// that is what the other side would read; so no value can smuggle a second message into the
// stream.
//
// Nothing that a peer can send makes this package panic, loop or allocate beyond the length of
// the bytes it was given. What breaks the protocol is a *ProtocolError with the SQLSTATE and
// the message that PostgreSQL itself uses.
package pgwire
