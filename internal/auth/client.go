package auth

import (
	"bytes"
	"crypto/hmac"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// MaxIterations is the largest iteration count that a node may ask for where a password must be
// hashed with it: some 0.2 s of work. PostgreSQL's default is 4,096. Keys that came from a
// client's proof are never hashed again, so it does not bound them.
const MaxIterations = 1_000_000

// ClientOptions is what a ClientExchange knows of the connection to the node.
type ClientOptions struct {
	// TLS says that the connection is encrypted.
	TLS bool
	// EndPoint is the TLSServerEndPoint of the node's certificate; nil: no channel binding.
	EndPoint []byte
	// Cleartext allows a password to be sent as it is: over TLS, or where nobody can listen.
	Cleartext bool
}

// Errors of a node's login, before PostgreSQL's own.
var (
	// ErrOtherVerifier says that the node knows the user by another password than the one that
	// the keys belong to.
	ErrOtherVerifier = errors.New("the node holds another SCRAM verifier for this user than the one the client was checked with " +
		"(was the password changed a moment ago, or does the node not replicate from the primary?)")
	// ErrNoKey says that the node asks for something that cannot be given.
	ErrNoKey = errors.New("no key that this node would accept")
	// ErrNodeProof says that the node could not prove that it knows the user's verifier.
	ErrNodeProof = errors.New("the node's SCRAM signature is wrong: it does not know the password it asks for")
)

// clientState is what a ClientExchange waits for.
type clientState uint8

// The states of a ClientExchange.
const (
	clientNew      clientState = iota
	clientContinue             // AuthenticationSASLContinue
	clientFinal                // AuthenticationSASLFinal
	clientAnswered             // AuthenticationOk
	clientDone
	clientFailed
)

// ClientExchange logs one user in to one node. It is not safe for concurrent use.
type ClientExchange struct {
	user      string
	keys      Keys
	opts      ClientOptions
	state     clientState
	header    string // gs2-header
	bare      string // client-first-message-bare
	nonce     string // ours
	signature []byte // what the node must answer
}

// NewClientExchange is the login of a user with these keys.
func NewClientExchange(user string, keys Keys, opts ClientOptions) *ClientExchange {
	return &ClientExchange{user: user, keys: keys, opts: opts}
}

// Done says whether the node has sent AuthenticationOk, and proved itself where the method
// lets it.
func (x *ClientExchange) Done() bool { return x.state == clientDone }

// Step takes the body of an Authentication message of the node and appends the answer to dst, if
// there is one. An error is final; nothing was appended then. It wraps ErrNoKey,
// ErrOtherVerifier or ErrNodeProof where it is about those.
func (x *ClientExchange) Step(dst, body []byte) ([]byte, error) {
	out, err := x.step(dst, body)
	if err != nil {
		x.state = clientFailed
		return dst, err
	}
	return out, nil
}

// step is Step without the bookkeeping of failure.
func (x *ClientExchange) step(dst, body []byte) ([]byte, error) {
	if len(body) < 4 {
		return nil, errors.New("authentication message of the node is too short")
	}
	code, data := binary.BigEndian.Uint32(body), body[4:]
	switch {
	case code == codeOK && (x.state == clientNew || x.state == clientAnswered):
		if len(data) != 0 {
			return nil, errors.New("AuthenticationOk of the node has trailing bytes")
		}
		x.state = clientDone
		return dst, nil
	case code == codeOK:
		return nil, errors.New("the node ended the SCRAM exchange before it proved itself")
	case code == codeSASL && x.state == clientNew:
		return x.start(dst, data)
	case code == codeSASLContinue && x.state == clientContinue:
		return x.prove(dst, string(data))
	case code == codeSASLFinal && x.state == clientFinal:
		return dst, x.verify(string(data))
	case code == codeMD5 && x.state == clientNew:
		return x.answerMD5(dst, data)
	case code == codeCleartext && x.state == clientNew:
		return x.answerCleartext(dst, data)
	case x.state == clientNew:
		return nil, fmt.Errorf("%w: it asks for authentication method %d, which is not supported", ErrNoKey, code)
	}
	return nil, fmt.Errorf("authentication message %d of the node is out of order", code)
}

// answerMD5 answers AuthenticationMD5Password.
func (x *ClientExchange) answerMD5(dst, salt []byte) ([]byte, error) {
	if len(salt) != 4 {
		return nil, errors.New("the salt in the node's AuthenticationMD5Password is not 4 bytes long")
	}
	secret := x.keys.MD5
	if x.keys.Password != "" {
		secret = md5Secret(x.user, x.keys.Password)
	}
	if secret == "" {
		return nil, fmt.Errorf("%w: it asks for an md5 password, and %s", ErrNoKey, x.held())
	}
	x.state = clientAnswered
	return appendPassword(dst, md5Answer(secret, salt)+"\x00"), nil
}

// answerCleartext answers AuthenticationCleartextPassword.
func (x *ClientExchange) answerCleartext(dst, data []byte) ([]byte, error) {
	switch {
	case len(data) != 0:
		return nil, errors.New("AuthenticationCleartextPassword of the node has trailing bytes")
	case x.keys.Password == "":
		return nil, fmt.Errorf("%w: it asks for the plaintext password, and %s", ErrNoKey, x.held())
	case !x.opts.TLS && !x.opts.Cleartext:
		return nil, fmt.Errorf("%w: it asks for the plaintext password over a connection without TLS", ErrNoKey)
	}
	x.state = clientAnswered
	return appendPassword(dst, x.keys.Password+"\x00"), nil
}

// held says in words what the keys hold.
func (x *ClientExchange) held() string {
	switch {
	case x.keys.Password != "":
		return "a password is known"
	case x.keys.ClientKey != nil:
		return "only SCRAM keys are known for this user"
	case x.keys.MD5 != "":
		return "only an md5 hash is known for this user"
	}
	return "nothing is known for this user"
}

// start answers AuthenticationSASL with the client-first-message.
func (x *ClientExchange) start(dst, data []byte) ([]byte, error) {
	list, ok := bytes.CutSuffix(data, []byte{0, 0})
	if !ok {
		return nil, errors.New("the node's list of SASL mechanisms has no end")
	}
	offered := strings.Split(string(list), "\x00")
	plain, plus := slices.Contains(offered, mechanismSCRAM), slices.Contains(offered, mechanismSCRAMPlus)
	if x.keys.ClientKey == nil && x.keys.Password == "" {
		return nil, fmt.Errorf("%w: it asks for SCRAM-SHA-256, and %s", ErrNoKey, x.held())
	}
	mechanism := mechanismSCRAM
	switch {
	case plus && x.opts.TLS && x.opts.EndPoint != nil:
		mechanism, x.header = mechanismSCRAMPlus, "p="+bindingType+",,"
	case !plain:
		return nil, fmt.Errorf("%w: it offers no SASL mechanism that can be used (%s)", ErrNoKey, strings.Join(offered, ", "))
	case x.opts.TLS && x.opts.EndPoint != nil:
		x.header = "y,,"
	default:
		x.header = "n,,"
	}
	x.nonce = newNonce()
	x.bare = "n=,r=" + x.nonce
	x.state = clientContinue
	first := x.header + x.bare
	payload := binary.BigEndian.AppendUint32([]byte(mechanism+"\x00"), uint32(len(first))) //nolint:gosec // some 60 bytes
	return appendPassword(dst, string(payload)+first), nil
}

// prove answers the server-first-message with the proof.
func (x *ClientExchange) prove(dst []byte, msg string) ([]byte, error) {
	nonce, salt, iterations, err := x.serverFirst(msg)
	if err != nil {
		return nil, err
	}
	keys, err := x.derive(salt, iterations)
	if err != nil {
		return nil, err
	}
	binding := []byte(x.header)
	if x.header[0] == 'p' {
		binding = append(binding, x.opts.EndPoint...)
	}
	unproved := "c=" + encoding.EncodeToString(binding) + ",r=" + nonce
	message := []string{x.bare, ",", msg, ",", unproved}
	proof := xor(keys.ClientKey, mac(keys.StoredKey, message...))
	x.signature = mac(keys.ServerKey, message...)
	x.state = clientFinal
	return appendPassword(dst, unproved+",p="+encoding.EncodeToString(proof)), nil
}

// serverFirst reads the server-first-message.
func (x *ClientExchange) serverFirst(msg string) (nonce string, salt []byte, iterations int, err error) {
	broken := func(what string) (string, []byte, int, error) {
		return "", nil, 0, errors.New("malformed SCRAM message of the node: " + what)
	}
	if strings.HasPrefix(msg, "m=") {
		return broken("it requires an extension that is not supported")
	}
	a := attributes{rest: msg}
	nonce, problem := a.expect('r')
	if problem != "" {
		return broken(problem)
	}
	if !strings.HasPrefix(nonce, x.nonce) || len(nonce) == len(x.nonce) || !printableNonce(nonce) {
		return broken("its nonce does not extend ours")
	}
	text, problem := a.expect('s')
	if problem != "" {
		return broken(problem)
	}
	salt, err = encoding.DecodeString(text)
	if err != nil || len(salt) == 0 {
		return broken("the salt is not base64")
	}
	count, problem := a.expect('i')
	if problem != "" {
		return broken(problem)
	}
	iterations, ok := parseCount(count)
	if !ok {
		return broken("the iteration count is not a positive number")
	}
	for a.rest != "" {
		if _, _, problem := a.next(); problem != "" {
			return broken(problem)
		}
	}
	return nonce, salt, iterations, nil
}

// derive is the keys for the node's salt and iteration count.
func (x *ClientExchange) derive(salt []byte, iterations int) (Keys, error) {
	if x.keys.ClientKey != nil {
		if !bytes.Equal(salt, x.keys.Salt) || iterations != x.keys.Iterations {
			return Keys{}, ErrOtherVerifier
		}
		return x.keys, nil
	}
	if iterations > MaxIterations {
		return Keys{}, fmt.Errorf("%w: it asks for %d SCRAM iterations, more than the %d allowed", ErrNoKey, iterations, MaxIterations)
	}
	clientKey, serverKey := deriveKeys(x.keys.Password, salt, iterations)
	return Keys{ClientKey: clientKey, ServerKey: serverKey, StoredKey: hash(clientKey)}, nil
}

// verify checks the server-final-message.
func (x *ClientExchange) verify(msg string) error {
	a := attributes{rest: msg}
	name, value, problem := a.next()
	switch {
	case problem != "":
		return errors.New("malformed SCRAM message of the node: " + problem)
	case name == 'e':
		return fmt.Errorf("the node ended the SCRAM exchange: %.100q", value)
	case name != 'v':
		return errors.New("malformed SCRAM message of the node: no signature")
	}
	signature, err := encoding.DecodeString(value)
	if err != nil || !hmac.Equal(signature, x.signature) {
		return ErrNodeProof
	}
	x.state = clientAnswered
	return nil
}

// appendPassword appends one message of type 'p'.
func appendPassword(dst []byte, data string) []byte {
	dst = append(dst, 'p')
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(data)+4)) //nolint:gosec // a few hundred bytes
	return append(dst, data...)
}
