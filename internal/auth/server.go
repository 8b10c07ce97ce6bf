package auth

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/subtle"
	"encoding/binary"
	"fmt"
	"strings"
	"sync/atomic"
)

// Limits on the body of a message of type 'p', as PostgreSQL has them: a longer one is refused
// before it is read.
const (
	MaxSASLMessage     = 1024
	MaxPasswordMessage = 65535
)

// Seed makes users that do not exist look like those that do: their salts, the same for a user
// every time, and their iteration count, the largest that was seen. One per process; any
// goroutine may use it.
type Seed struct {
	key        [32]byte
	iterations atomic.Int64
}

// NewSeed is a random Seed.
func NewSeed() *Seed {
	s := new(Seed)
	_, _ = rand.Read(s.key[:]) // never returns an error
	s.iterations.Store(DefaultIterations)
	return s
}

// salt is the salt of a user whose secret holds none.
func (s *Seed) salt(user string) []byte { return mac(s.key[:], user)[:saltLen] }

// saw remembers the iteration count of a real verifier.
func (s *Seed) saw(iterations int) {
	for n := int64(iterations); ; {
		most := s.iterations.Load()
		if n <= most || s.iterations.CompareAndSwap(most, n) {
			return
		}
	}
}

// ServerOptions is what a ServerExchange knows besides the user.
type ServerOptions struct {
	// Seed must not be nil.
	Seed *Seed
	// TLS says that the client's connection is encrypted.
	TLS bool
	// EndPoint is the TLSServerEndPoint of the certificate that this client was shown. nil: no
	// channel binding is offered.
	EndPoint []byte
}

// serverState is what a ServerExchange waits for.
type serverState uint8

// The states of a ServerExchange.
const (
	serverNew    serverState = iota
	serverChoice             // SASLInitialResponse
	serverFirst              // SASLResponse with the client-first-message
	serverFinal              // SASLResponse with the client-final-message
	serverMD5                // PasswordMessage
	serverDone
	serverFailed
)

// ServerExchange authenticates one client. It is not safe for concurrent use.
type ServerExchange struct {
	user     string
	secret   Secret
	opts     ServerOptions
	state    serverState
	md5Salt  [4]byte
	verifier verifier
	plus     bool // SCRAM-SHA-256-PLUS was chosen
	flag     byte // the gs2-cbind-flag of the client: n, y or p
	bare     string
	nonce    string // the client's part followed by ours
	first    string // server-first-message
	keys     Keys
}

// NewServerExchange is the login of a user with this secret; the zero Secret is for a user
// nothing is known of, who will be denied.
func NewServerExchange(user string, secret Secret, opts ServerOptions) *ServerExchange {
	if opts.Seed == nil {
		panic("BUG: a server exchange needs a seed")
	}
	return &ServerExchange{user: user, secret: secret, opts: opts}
}

// Method names how the client is authenticated, for metrics: "scram-sha-256" or "md5".
func (x *ServerExchange) Method() string {
	if x.secret.kind == secretMD5 {
		return "md5"
	}
	return "scram-sha-256"
}

// MaxBody is the longest body of a message of type 'p' that Step should be given now.
func (x *ServerExchange) MaxBody() int {
	if x.state == serverMD5 {
		return MaxPasswordMessage
	}
	return MaxSASLMessage
}

// Begin appends the first Authentication message to dst. It must be called once, first.
func (x *ServerExchange) Begin(dst []byte) []byte {
	if x.state != serverNew {
		panic("BUG: Begin twice")
	}
	if x.secret.kind == secretMD5 {
		x.state = serverMD5
		_, _ = rand.Read(x.md5Salt[:]) // never returns an error
		return appendAuth(dst, codeMD5, string(x.md5Salt[:]))
	}
	x.state = serverChoice
	list := mechanismSCRAM + "\x00\x00"
	if x.opts.EndPoint != nil {
		list = mechanismSCRAMPlus + "\x00" + list
	}
	return appendAuth(dst, codeSASL, list)
}

// Step takes the body of the client's message of type 'p' and appends the answer to dst, if
// there is one. When done is true the client has proved who it is, Keys may be called, and
// AuthenticationOk is the caller's to send. An error is an *Error and final: nothing was appended,
// and every further Step fails.
func (x *ServerExchange) Step(dst, body []byte) (out []byte, done bool, err error) {
	var answer *Error
	switch x.state {
	case serverChoice:
		dst, answer = x.choose(dst, body)
	case serverFirst:
		dst, answer = x.clientFirst(dst, string(body))
	case serverFinal:
		dst, answer = x.clientFinal(dst, string(body))
	case serverMD5:
		answer = x.password(body)
	default:
		answer = violation("unexpected authentication message")
	}
	if answer != nil {
		x.state = serverFailed
		x.keys = Keys{}
		return dst, false, answer
	}
	return dst, x.state == serverDone, nil
}

// Keys is what the client's proof yielded: after SCRAM with a verifier the ClientKey, after
// another exchange what the secret holds. It is the zero Keys before the exchange is done.
func (x *ServerExchange) Keys() Keys {
	if x.state != serverDone {
		return Keys{}
	}
	return x.keys
}

// choose reads SASLInitialResponse: the mechanism and, mostly, the client-first-message.
func (x *ServerExchange) choose(dst, body []byte) ([]byte, *Error) {
	end := bytes.IndexByte(body, 0)
	if end < 0 {
		return dst, violation("invalid string in message")
	}
	mechanism, rest := string(body[:end]), body[end+1:]
	switch {
	case mechanism == mechanismSCRAMPlus && x.opts.EndPoint != nil:
		x.plus = true
	case mechanism == mechanismSCRAM:
	default:
		return dst, violation("client selected an invalid SASL authentication mechanism")
	}
	if len(rest) < 4 {
		return dst, violation("insufficient data left in message")
	}
	length, data := int32(binary.BigEndian.Uint32(rest)), rest[4:] //nolint:gosec // -1 is a value of this field
	x.begin()
	if length == -1 && len(data) == 0 {
		x.state = serverFirst
		return appendAuth(dst, codeSASLContinue, ""), nil
	}
	if length < -1 || int(length) > len(data) {
		return dst, violation("insufficient data left in message")
	}
	if length == -1 || int(length) < len(data) {
		return dst, violation("invalid message format")
	}
	return x.clientFirst(dst, string(data))
}

// begin settles which verifier the exchange runs with.
func (x *ServerExchange) begin() {
	salt := x.opts.Seed.salt(x.user)
	if x.secret.IsZero() {
		x.verifier = verifier{
			salt: salt, iterations: int(x.opts.Seed.iterations.Load()),
			storedKey: make([]byte, keyLen), serverKey: make([]byte, keyLen),
		}
		return
	}
	x.verifier = x.secret.scram(salt)
	x.opts.Seed.saw(x.verifier.iterations)
}

// clientFirst reads the client-first-message and answers with the server-first-message.
func (x *ServerExchange) clientFirst(dst []byte, msg string) ([]byte, *Error) {
	if err := checkText(msg); err != nil {
		return dst, err
	}
	rest, err := x.channelFlag(msg)
	if err != nil {
		return dst, err
	}
	if strings.HasPrefix(rest, "a") {
		return dst, &Error{
			SQLState: stateNotSupported,
			Message:  "client uses authorization identity, but it is not supported",
		}
	}
	if !strings.HasPrefix(rest, ",") {
		return dst, malformed(fmt.Sprintf("Unexpected attribute \"%s\" in client-first-message.", printable(byteAt(rest, 0))))
	}
	x.bare = rest[1:]
	if strings.HasPrefix(x.bare, "m") {
		return dst, &Error{SQLState: stateNotSupported, Message: "client requires an unsupported SCRAM extension"}
	}
	a := attributes{rest: x.bare}
	if _, problem := a.expect('n'); problem != "" { // PostgreSQL takes the name from the startup packet, too
		return dst, malformed(problem)
	}
	nonce, problem := a.expect('r')
	if problem != "" {
		return dst, malformed(problem)
	}
	if !printableNonce(nonce) {
		return dst, violation("non-printable characters in SCRAM nonce")
	}
	for a.rest != "" {
		if _, _, problem := a.next(); problem != "" {
			return dst, malformed(problem)
		}
	}
	x.nonce = nonce + newNonce()
	x.first = fmt.Sprintf("r=%s,s=%s,i=%d", x.nonce, encoding.EncodeToString(x.verifier.salt), x.verifier.iterations)
	x.state = serverFinal
	return appendAuth(dst, codeSASLContinue, x.first), nil
}

// channelFlag reads the gs2-cbind-flag and the comma behind it, and judges it against the
// mechanism: a client that could bind but was told we cannot has been lied to.
func (x *ServerExchange) channelFlag(msg string) (rest string, err *Error) {
	x.flag = msg[0]
	switch x.flag {
	case 'n', 'y':
		if x.plus {
			return "", malformed("The client selected SCRAM-SHA-256-PLUS, but the SCRAM message does not include channel binding data.")
		}
		if x.flag == 'y' && x.opts.EndPoint != nil {
			return "", &Error{
				SQLState: stateInvalidAuth,
				Message:  "SCRAM channel binding negotiation error",
				Detail: "The client supports SCRAM channel binding but thinks the server does not.  " +
					"However, this server does support channel binding.",
			}
		}
		if byteAt(msg, 1) != ',' {
			return "", malformed(fmt.Sprintf("Comma expected, but found character \"%s\".", printable(byteAt(msg, 1))))
		}
		return msg[2:], nil
	case 'p':
		if !x.plus {
			return "", malformed("The client selected SCRAM-SHA-256 without channel binding, but the SCRAM message includes channel binding data.")
		}
		a := attributes{rest: msg}
		kind, problem := a.expect('p')
		if problem != "" {
			return "", malformed(problem)
		}
		if kind != bindingType {
			return "", violation(fmt.Sprintf("unsupported SCRAM channel-binding type \"%s\"", kind)) //nolint:gocritic // as PostgreSQL
		}
		return a.rest, nil
	}
	return "", malformed(fmt.Sprintf("Unexpected channel-binding flag \"%s\".", printable(x.flag)))
}

// clientFinal reads the client-final-message, checks the proof and answers with the
// server-final-message.
func (x *ServerExchange) clientFinal(dst []byte, msg string) ([]byte, *Error) {
	if err := checkText(msg); err != nil {
		return dst, err
	}
	a := attributes{rest: msg}
	binding, problem := a.expect('c')
	if problem != "" {
		return dst, malformed(problem)
	}
	if err := x.checkBinding(binding); err != nil {
		return dst, err
	}
	nonce, problem := a.expect('r')
	if problem != "" {
		return dst, malformed(problem)
	}
	var name byte
	var proof string
	unproved := ""
	for name != 'p' {
		unproved = msg[:max(len(msg)-len(a.rest)-1, 0)]
		if name, proof, problem = a.next(); problem != "" {
			return dst, malformed(problem)
		}
	}
	signed, err := encoding.DecodeString(proof)
	if err != nil || len(signed) != keyLen {
		return dst, malformed("Malformed proof in client-final-message.")
	}
	if a.rest != "" {
		return dst, malformed("Garbage found at the end of client-final-message.")
	}
	if subtle.ConstantTimeCompare([]byte(nonce), []byte(x.nonce)) != 1 {
		return dst, &Error{SQLState: stateProtocolViolation, Message: "invalid SCRAM response", Detail: "Nonce does not match."}
	}
	return x.prove(dst, signed, unproved)
}

// checkBinding compares the c attribute with what this connection must have sent.
func (x *ServerExchange) checkBinding(got string) *Error {
	if x.plus {
		want := encoding.EncodeToString(append([]byte("p="+bindingType+",,"), x.opts.EndPoint...))
		if got != want {
			return &Error{SQLState: stateInvalidAuth, Message: "SCRAM channel binding check failed"}
		}
		return nil
	}
	if got != encoding.EncodeToString([]byte{x.flag, ',', ','}) {
		return violation("unexpected SCRAM channel-binding attribute in client-final-message")
	}
	return nil
}

// prove recovers the ClientKey from the proof. It takes the same time for users that exist
// and for those that do not.
func (x *ServerExchange) prove(dst, proof []byte, unproved string) ([]byte, *Error) {
	message := []string{x.bare, ",", x.first, ",", unproved}
	clientKey := xor(proof, mac(x.verifier.storedKey, message...))
	right := hmac.Equal(hash(clientKey), x.verifier.storedKey)
	signature := mac(x.verifier.serverKey, message...)
	if x.secret.IsZero() {
		return dst, Denial(x.user, "no such user, or no password that may be used")
	}
	if !right {
		return dst, Denial(x.user, "wrong password")
	}
	x.state = serverDone
	if x.secret.kind == secretPlain {
		x.keys = Keys{Password: x.secret.text}
	} else {
		x.keys = Keys{
			ClientKey: clientKey, ServerKey: x.verifier.serverKey, StoredKey: x.verifier.storedKey,
			Salt: x.verifier.salt, Iterations: x.verifier.iterations,
		}
	}
	return appendAuth(dst, codeSASLFinal, "v="+encoding.EncodeToString(signature)), nil
}

// password reads the PasswordMessage that answers AuthenticationMD5Password.
func (x *ServerExchange) password(body []byte) *Error {
	if bytes.IndexByte(body, 0) != len(body)-1 || len(body) == 0 {
		return violation("invalid password packet size")
	}
	answer := body[:len(body)-1]
	if len(answer) == 0 {
		return &Error{SQLState: stateInvalidPassword, Message: "empty password returned by client"}
	}
	want := md5Answer(x.secret.text, x.md5Salt[:])
	if subtle.ConstantTimeCompare(answer, []byte(want)) != 1 {
		return Denial(x.user, "wrong password")
	}
	x.keys = Keys{MD5: x.secret.text}
	x.state = serverDone
	return nil
}

// checkText refuses what PostgreSQL refuses before it looks at a SCRAM message.
func checkText(msg string) *Error {
	if msg == "" {
		return malformed("The message is empty.")
	}
	if strings.IndexByte(msg, 0) >= 0 {
		return malformed("Message length does not match input length.")
	}
	return nil
}

// byteAt is s[i], or 0 behind its end, which is what PostgreSQL finds there.
func byteAt(s string, i int) byte {
	if i < len(s) {
		return s[i]
	}
	return 0
}

// appendAuth appends one Authentication message.
func appendAuth(dst []byte, code uint32, data string) []byte {
	dst = append(dst, 'R')
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(data)+8)) //nolint:gosec // some hundred bytes
	dst = binary.BigEndian.AppendUint32(dst, code)
	return append(dst, data...)
}
