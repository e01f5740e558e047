// Scores texts by a model's hidden states:  score detectors.npz STATES...
// A file of states holds one text as float32, (states, tokens, width), little-endian.
//     c++ -std=c++17 score.cpp -o score $(python -m layerguard.runtime --cflags --libs)
#include <fstream>
#include <iomanip>
#include <iostream>
#include <iterator>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include <layerguard.h>

static void check(lg_status const status)
{
    if (status != LG_OK)
        throw std::runtime_error(lg_strerror(status));
}

static std::vector<char> bytes_of(std::string const &path)
{
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

int main(int const count, char **const arguments) try {
    lg_guard *opened = nullptr;
    check(lg_open(count > 1 ? arguments[1] : "", nullptr, &opened));
    std::unique_ptr<lg_guard, decltype(&lg_close)> const guard(opened, lg_close);
    lg_guard_info info{};
    info.struct_size = sizeof info;
    check(lg_guard_describe(guard.get(), &info));
    std::vector<lg_reading> readings(info.detectors);
    std::vector<double> workspace(info.workspace / sizeof(double) + 1);
    for (int i = 2; i < count; i++) {
        std::vector<char> const values = bytes_of(arguments[i]);
        std::size_t const row = info.width * sizeof(float);
        std::size_t const tokens = values.size() / row / info.states;
        lg_states const states{nullptr, values.data(), std::ptrdiff_t(tokens * row),
                               std::ptrdiff_t(row), info.states, tokens, info.width, LG_F32};
        bool const whole = tokens && tokens * row * info.states == values.size();
        check(whole && info.states_known && info.width_known ? LG_OK : LG_ERR_SHAPE);
        lg_score_call const call{sizeof call, states, nullptr, nullptr, nullptr, workspace.data(),
                                 info.workspace, readings.data(), sizeof(lg_reading), 0};
        check(lg_score(guard.get(), &call));
        lg_decide_call const decide{sizeof decide, readings.data(), sizeof(lg_reading), nullptr};
        lg_verdict verdict{};
        verdict.struct_size = sizeof verdict;
        check(lg_decide(guard.get(), &decide, &verdict));
        std::cout << std::setprecision(17) << verdict.flagged;
        for (lg_reading const &reading : readings)
            std::cout << ' ' << reading.score;
        std::cout << '\n';
    }
} catch (std::exception const &error) {
    std::cerr << "score: " << error.what() << '\n';
    return 2;
}
