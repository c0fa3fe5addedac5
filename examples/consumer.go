// Follows all pods of all clusters: go run consumer.go nats://127.0.0.1:4222 [last sequence]
package main

import (
	"bytes"
	"compress/zlib"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"os"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/vmihailenco/msgpack/v5"
)

// What this consumer needs of a message; docs/log.md lists all keys.
type delta struct {
	V           int      `msgpack:"v"`
	Type        string   `msgpack:"type"`
	Record      string   `msgpack:"record"`
	Cluster     string   `msgpack:"cluster"`
	Resource    string   `msgpack:"resource"`
	Namespace   string   `msgpack:"namespace"`
	Name        string   `msgpack:"name"`
	UID         string   `msgpack:"uid"`
	Compression string   `msgpack:"compression"`
	Parts       []uint64 `msgpack:"parts"`
	Object      []byte   `msgpack:"object"`
}

// The object's JSON, put together and unpacked where it was too large for a message. Nil: superseded meanwhile.
func (d *delta) body(js nats.JetStreamContext) ([]byte, error) {
	packed := d.Object
	for _, sequence := range d.Parts {
		part, err := js.GetMsg("KUBEBRAID", sequence)
		if err == nats.ErrMsgNotFound {
			return nil, nil
		} else if err != nil {
			return nil, err
		}
		packed = append(packed, part.Data...)
	}
	if d.Compression == "" {
		return packed, nil
	}
	reader, err := zlib.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(reader)
}

func main() {
	last := uint64(0)
	if len(os.Args) > 2 {
		var err error
		if last, err = strconv.ParseUint(os.Args[2], 10, 64); err != nil {
			log.Fatal(err)
		}
	}
	connection, err := nats.Connect(os.Args[1], nats.MaxReconnects(-1))
	if err != nil {
		log.Fatal(err)
	}
	js, err := connection.JetStream()
	if err != nil {
		log.Fatal(err)
	}
	// All subjects, as this version of nats.go takes one filter only, and removals have another subject than pods.
	messages, err := js.SubscribeSync(">", nats.BindStream("KUBEBRAID"), nats.OrderedConsumer(), nats.StartSequence(last+1))
	if err != nil {
		log.Fatal(err)
	}
	output := json.NewEncoder(os.Stdout)
	for {
		message, err := messages.NextMsg(nats.DefaultDrainTimeout)
		if err == nats.ErrTimeout {
			continue
		} else if err != nil {
			log.Fatal(err)
		}
		metadata, err := message.Metadata()
		if err != nil {
			log.Fatal(err)
		}
		tokens := strings.Split(message.Subject, ".")
		pod := tokens[0] == "kb" && tokens[2] == "core" && tokens[4] == "pods"
		removal := tokens[0] == "kbc" && tokens[2] == "removed"
		// The server's own markers have no data. A sequence that is not higher is a repetition.
		if !(pod || removal) || len(message.Data) == 0 || metadata.Sequence.Stream <= last {
			continue
		}
		var d delta
		if err := msgpack.Unmarshal(message.Data, &d); err != nil || d.V != 1 {
			log.Fatal(metadata.Sequence.Stream, ": not of a format that is known here ", err)
		}
		line := map[string]any{"sequence": metadata.Sequence.Stream, "cluster": d.Cluster, "resource": d.Resource}
		if removal {
			// Everything of that type (all of the cluster, if it is empty) with a lower sequence has gone.
			line["type"] = "REMOVED"
		} else {
			body, err := d.body(js)
			if err != nil {
				log.Fatal(err)
			} else if body == nil {
				continue
			}
			line["type"], line["name"], line["uid"] = d.Type, fmt.Sprintf("%s/%s", d.Namespace, d.Name), d.UID
			line["bytes"] = len(body)
		}
		if err := output.Encode(line); err != nil {
			log.Fatal(err)
		}
		// Keep it where its effect is kept, in the same transaction: then each change counts exactly once.
		last = metadata.Sequence.Stream
	}
}
