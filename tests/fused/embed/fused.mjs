// A fused graph in Node: GRAPH and a file of cases in, one JSON object a case out.
// A case is lines `name type sides : values`, ended by an empty line.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const [graph, cases, modules] = process.argv.slice(2);
const ort = createRequire(`${modules}/`)("onnxruntime-node");
const arrays = {
  int64: (values) => BigInt64Array.from(values, BigInt),
  float64: (values) => Float64Array.from(values, Number),
};

function tensor(line) {
  const [head, tail] = line.split(" : ");
  const [name, type, ...sides] = head.split(" ");
  return [name, new ort.Tensor(type, arrays[type](tail.split(" ")), sides.map(Number))];
}

const session = await ort.InferenceSession.create(graph, { intraOpNumThreads: 1 });
for (const one of readFileSync(cases, "utf8").split("\n\n").filter(Boolean)) {
  const found = await session.run(Object.fromEntries(one.split("\n").map(tensor)));
  const plain = Object.entries(found).map(([name, { data }]) => [name, Array.from(data, Number)]);
  console.log(JSON.stringify(Object.fromEntries(plain)));
}
