// Scores texts by a model's hidden states:  score detectors.npz STATES...
// A file of states holds one text as float32, (states, tokens, width), little-endian.
//
//	CGO_CFLAGS=$(python -m layerguard.runtime --cflags) \
//	CGO_LDFLAGS=$(python -m layerguard.runtime --libs) go build score.go
package main

// #include <stdlib.h>
// #include <layerguard.h>
import "C"

import (
	"fmt"
	"log"
	"os"
	"unsafe"
)

func check(status C.lg_status) {
	if status != C.LG_OK {
		log.Fatal(C.GoString(C.lg_strerror(C.int(status))))
	}
}

func main() {
	var guard *C.lg_guard
	check(C.lg_open(C.CString(os.Args[1]), nil, &guard))
	defer C.lg_close(guard)
	var info C.lg_guard_info
	info.struct_size = C.sizeof_lg_guard_info
	check(C.lg_guard_describe(guard, &info))
	readings := (*C.lg_reading)(C.calloc(info.detectors, C.sizeof_lg_reading))
	workspace := C.malloc(info.workspace)
	for _, name := range os.Args[2:] {
		values, err := os.ReadFile(name)
		row := info.width * C.sizeof_float
		tokens := C.size_t(len(values)) / row / info.states
		if tokens*row*info.states != C.size_t(len(values)) || info.states_known&info.width_known == 0 {
			log.Fatal(name, " does not hold states of this guard's model ", err)
		}
		base := C.CBytes(values) // C memory: a struct passed to C must not point to Go memory
		states := C.lg_states{base: base, layer_stride: C.ptrdiff_t(tokens * row),
			row_stride: C.ptrdiff_t(row), layer_count: info.states, rows: tokens, width: info.width}
		call := C.lg_score_call{struct_size: C.sizeof_lg_score_call, states: states,
			workspace: workspace, workspace_size: info.workspace,
			readings: readings, reading_size: C.sizeof_lg_reading}
		check(C.lg_score(guard, &call))
		decide := C.lg_decide_call{struct_size: C.sizeof_lg_decide_call,
			readings: readings, reading_size: C.sizeof_lg_reading}
		verdict := C.lg_verdict{struct_size: C.sizeof_lg_verdict}
		check(C.lg_decide(guard, &decide, &verdict))
		C.free(base)
		fmt.Print(verdict.flagged)
		for _, reading := range unsafe.Slice(readings, info.detectors) {
			fmt.Printf(" %.17g", float64(reading.score))
		}
		fmt.Println()
	}
}
