package otlp

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	common "go.opentelemetry.io/proto/otlp/common/v1"
	"google.golang.org/protobuf/proto"
)

// maxLabels bounds the labels of a series, in bytes of names and values and with
// something for each: those of the resource are kept with every series of it.
const (
	maxLabels = 16 << 10
	perLabel  = 64
)

// labelsOf returns a copy of outer with the attributes added, nil if outer is or if
// that is more than a series may have.
func labelsOf(outer map[string]string, attributes []*common.KeyValue) map[string]string {
	if outer == nil || len(attributes) > maxLabels/perLabel {
		return nil
	}
	out := make(map[string]string, len(outer)+len(attributes))
	maps.Copy(out, outer)
	for _, a := range attributes {
		if proto.Size(a) > maxLabels {
			return nil
		}
		out[a.GetKey()] = text(a.GetValue(), 0)
	}
	size := 0
	for name, value := range out {
		size += len(name) + len(value) + perLabel
	}
	if size > maxLabels {
		return nil
	}
	return out
}

// maxDepth bounds how deep attributes may be nested: what is deeper is cut.
const maxDepth = 8

// text writes an attribute's value; what is in lists and maps, joined by commas.
func text(v *common.AnyValue, depth int) string {
	if depth > maxDepth {
		return "…"
	}
	switch v := v.GetValue().(type) {
	case nil:
		return ""
	case *common.AnyValue_StringValue:
		return v.StringValue
	case *common.AnyValue_BoolValue:
		return strconv.FormatBool(v.BoolValue)
	case *common.AnyValue_IntValue:
		return strconv.FormatInt(v.IntValue, 10)
	case *common.AnyValue_DoubleValue:
		return strconv.FormatFloat(v.DoubleValue, 'g', -1, 64)
	case *common.AnyValue_BytesValue:
		return fmt.Sprintf("%x", v.BytesValue)
	case *common.AnyValue_ArrayValue:
		list := make([]string, 0, len(v.ArrayValue.GetValues()))
		for _, one := range v.ArrayValue.GetValues() {
			list = append(list, text(one, depth+1))
		}
		return strings.Join(list, ",")
	case *common.AnyValue_KvlistValue:
		list := make([]string, 0, len(v.KvlistValue.GetValues()))
		for _, one := range v.KvlistValue.GetValues() {
			list = append(list, one.GetKey()+"="+text(one.GetValue(), depth+1))
		}
		return strings.Join(list, ",")
	}
	return ""
}

func keyOf(labels map[string]string) string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		b.WriteString(strconv.Quote(name) + strconv.Quote(labels[name]))
	}
	return b.String()
}
