// A fused graph in C++: GRAPH and a file of cases in, one JSON object a case out.
// A case is lines `name type sides : values`, ended by an empty line.
#include <cstdint>
#include <cstdio>
#include <deque>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include <onnxruntime_cxx_api.h>

struct Case {
    std::vector<std::string> names;
    std::vector<Ort::Value> tensors;
    std::deque<std::vector<int64_t>> integers;
    std::deque<std::vector<double>> doubles;
};

template <class T>
static Ort::Value tensor(std::istream &in, std::vector<int64_t> const &sides,
                         std::deque<std::vector<T>> &kept)
{
    static auto const memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
    auto &values = kept.emplace_back();
    for (T value; in >> value;)
        values.push_back(value);
    return Ort::Value::CreateTensor<T>(memory, values.data(), values.size(), sides.data(),
                                       sides.size());
}

static void add(Case &one, std::string const &line)
{
    std::istringstream in(line);
    std::string name, type, word;
    std::vector<int64_t> sides;
    for (in >> name >> type >> word; word != ":"; in >> word)
        sides.push_back(std::stoll(word));
    one.names.push_back(name);
    one.tensors.push_back(type == "int64" ? tensor(in, sides, one.integers)
                                          : tensor(in, sides, one.doubles));
}

static void print(std::string const &name, Ort::Value const &value)
{
    auto const info = value.GetTensorTypeAndShapeInfo();
    std::printf("\"%s\": [", name.c_str());
    for (size_t i = 0; i < info.GetElementCount(); i++)
        std::printf("%s%.17g", i ? ", " : "",
                    info.GetElementType() == ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL
                        ? double(value.GetTensorData<bool>()[i])
                        : value.GetTensorData<double>()[i]);
    std::printf("]");
}

static std::vector<char const *> pointers(std::vector<std::string> const &names)
{
    std::vector<char const *> found;
    for (auto const &name : names)
        found.push_back(name.c_str());
    return found;
}

int main(int, char **argv)
{
    Ort::Env env(ORT_LOGGING_LEVEL_ERROR);
    Ort::SessionOptions options;
    options.SetIntraOpNumThreads(1);
    Ort::Session session(env, argv[1], options);
    Ort::AllocatorWithDefaultOptions allocator;
    std::vector<std::string> outputs;
    for (size_t i = 0; i < session.GetOutputCount(); i++)
        outputs.push_back(session.GetOutputNameAllocated(i, allocator).get());
    std::ifstream file(argv[2]);
    Case one;
    for (std::string line; std::getline(file, line);) {
        if (!line.empty()) {
            add(one, line);
            continue;
        }
        auto const found
            = session.Run(Ort::RunOptions(), pointers(one.names).data(), one.tensors.data(),
                          one.tensors.size(), pointers(outputs).data(), outputs.size());
        for (size_t i = 0; i < outputs.size(); i++) {
            std::printf(i ? ", " : "{");
            print(outputs[i], found[i]);
        }
        std::printf("}\n");
        one = Case();
    }
}
