// The native kernel without TensorFlow, for the sanitisers: every pass on awkward shapes, against the
// definition in double; several callers at once; a forked child. Prints what differs, exits with 1.
#include "../../../keras_bn/native/kernel.h"

#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>

using namespace keras_bn;

namespace {

int faults = 0;

void expect_close(const char* what, double actual, double expected, double tolerance) {
  if (std::fabs(actual - expected) <= tolerance * (1.0 + std::fabs(expected))) return;
  std::fprintf(stderr, "%s: %.9g instead of %.9g\n", what, actual, expected);
  ++faults;
}

float noise(uint32_t& state) {
  state = state * 1664525u + 1013904223u;
  return static_cast<float>(state >> 8) / (1 << 24) - 0.5f;
}

struct Case {
  int64_t groups, before, channels, after, covers;
};

// Values as the kernel stores them, in buffers of exactly their size.
struct Buffer {
  Buffer(Type type, int64_t size) : type(type), floats(size), halves(size) {}
  Values values() {
    return type == FLOAT32 ? Values(type, floats.data()) : Values(type, halves.data());
  }
  void set(int64_t i, float value) {
    floats[i] = value;
    if (type == FLOAT32) return;
    loops(type).set(halves.data(), i, value);
    floats[i] = loops(type).at(halves.data(), i);
  }
  float get(int64_t i) { return values().at(i); }
  Type type;
  std::vector<float> floats;
  std::vector<uint16_t> halves;
};

void passes(const Case& one, Type type, int kind) {
  const Layout layout(one.groups, one.before, one.channels, one.after, one.covers);
  const int64_t size = layout.size(), per_channel = one.groups * one.channels;
  uint32_t state = 1;
  Buffer x(type, size), dy(type, size), y(type, size);
  for (int64_t i = 0; i < size; ++i) x.set(i, 3.0f + 4.0f * noise(state)), dy.set(i, noise(state));
  std::vector<float> gamma(one.channels), beta(one.channels), weights;
  for (int64_t c = 0; c < one.channels; ++c) gamma[c] = 1.5f + noise(state), beta[c] = noise(state);
  for (int64_t i = 0; one.covers && i < size / one.covers; ++i)
    weights.push_back(i % 3 ? 1.0f : i % 2 ? 0.0f : 0.5f + noise(state));
  const float* w = one.covers ? weights.data() : nullptr;
  const Activation f{kind, 0.1f};
  const Statistics s = sums(layout, x.values(), w);
  normalise(layout, x.values(), y.values(), s, gamma.data(), beta.data(), 1e-3f, f);
  std::vector<float> first(per_channel), second(per_channel);
  gradient_sums(layout, dy.values(), x.values(), s, gamma.data(), beta.data(), 1e-3f, f,
                first.data(), second.data());
  gradient(layout, dy.values(), x.values(), dy.values(), w, s, gamma.data(), beta.data(), 1e-3f, f,
           first.data(), second.data());
  std::vector<float> mean(one.channels), variance(one.channels);
  update(layout, s, beta.data(), gamma.data(), 0.9f, true, true, mean.data(), variance.data());
  for (int64_t i = 0; i < per_channel; ++i) {
    double total = 0.0, m = 0.0, v = 0.0;
    for (int pass = 0; pass < 2; ++pass) {
      for (int64_t b = 0; b < one.before; ++b)
        for (int64_t a = 0; a < one.after; ++a) {
          const int64_t at =
              ((i / one.channels * one.before + b) * one.channels + i % one.channels) * one.after + a;
          const double weight = w ? w[at / one.covers] : 1.0, value = x.floats[at];
          if (pass == 0) total += weight, m += weight * value;
          else v += weight * (value - m) * (value - m);
        }
      if (pass == 0 && total > 0.0) m /= total;
    }
    if (total > 0.0) v /= total;
    expect_close("mean", double{s.centre[i]} + s.delta[i], m, 1e-5);
    expect_close("variance", s.variance[i], v, 1e-5);
    if (kind != 0 || one.before * one.after == 0) continue;
    const int64_t at = i / one.channels * one.before * one.channels * one.after +
                       i % one.channels * one.after;
    const double scale = gamma[i % one.channels] / std::sqrt(v + 1e-3);
    expect_close("y", y.get(at), scale * (x.floats[at] - m) + beta[i % one.channels],
                 type == FLOAT32 ? 1e-5 : 2e-2);
  }
}

void all_cases() {
  const Case cases[] = {
      {1, 0, 3, 1, 0},    {1, 1, 1, 1, 0},      {1, 37, 3, 1, 0},     {1, 1000, 129, 1, 0},
      {1, 3, 2500, 1, 0}, {4, 9, 5, 1, 0},      {2, 7, 3, 5, 0},      {2, 3, 4, 40, 0},
      {1, 2, 3, 1100, 0}, {1, 1, 2, 140000, 0}, {1, 60, 6, 1, 6},     {1, 60, 6, 1, 60},
      {2, 12, 3, 4, 12},  {2, 6, 3, 20, 60},    {1, 5, 7, 20, 20},    {0, 4, 3, 1, 0},
      {1, 600, 5, 1, 50}, {1, 4, 0, 3, 0},
  };
  for (const Case& one : cases)
    for (const Type type : {FLOAT32, BFLOAT16, FLOAT16})
      for (int kind = 0; kind < ACTIVATIONS; ++kind) passes(one, type, kind);
}

}  // namespace

int main(int count, char**) {
  Pool::instance().set_threads(4);
  all_cases();
  std::vector<std::thread> callers;
  for (int i = 0; i < 4; ++i)
    callers.emplace_back([] {
      for (int k = 0; k < 10; ++k) passes({1, 1000, 129, 1, 0}, FLOAT32, 1);
    });
  for (std::thread& caller : callers) caller.join();
  if (count == 1) {  // threads after a fork are what ThreadSanitizer does not know
    const pid_t child = fork();
    if (child == 0) {
      passes({1, 1000, 129, 1, 0}, FLOAT32, 0);
      _exit(faults ? 1 : 0);
    }
    int status = 1;
    waitpid(child, &status, 0);
    faults += status != 0;
  }
  if (faults == 0) std::puts("all passes agree");
  return faults ? 1 : 0;
}
