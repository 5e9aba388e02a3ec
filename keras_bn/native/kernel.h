// Batch normalisation in two passes forward and two backward, over tensors in memory.
//
// Every channel of every group of samples has m values x of weight w (1 without weights), W = sum w.
//
//     sums          d = x - c          c a float32 near the mean, of at most 16 values
//                   delta = sum w d / W,   variance = sum w d^2 / W - delta^2,   mean = c + delta
//     normalise     y = f(a (x - c) + b)       a = gamma / sqrt(variance + epsilon)
//                                              b = beta - a delta
//     gradient_sums dz = dy f'(a (x - c) + b),   s = sum dz,   t = sum dz (x - mean)
//     gradient      dx = a dz + w (p (x - c) + q)      p = -a t / (W (variance + epsilon))
//                                                      q = -a s / W - p delta
//
// c is exact and x - c nearly so: a mean of 1e5 costs no digits of the spread. Where it turns out
// that c lies far from the mean, `sums` starts again from the mean. Sums are taken in float32 over at
// most 512 values, and in double over those. What is summed with what depends on the tensor's shape
// alone, so the bits do not depend on the number of threads.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "pool.h"

namespace keras_bn {

enum Type { FLOAT32, BFLOAT16, FLOAT16, TYPES };  // in the order of `LOOPS`, in loops.inc
enum { ACTIVATIONS = 6 };                          // likewise

struct Columns {
  const float *a, *b, *c, *p, *q;
};

struct Loops {  // for one type of values
  float (*at)(const void*, int64_t);
  void (*set)(void*, int64_t, float);
  void (*sums)(const void*, int64_t, int64_t, int64_t, const float*, float*, float*);
  void (*weighted_sums)(const void*, float, int64_t, const float*, float*, float*);
  void (*normalise[ACTIVATIONS])(const void*, void*, int64_t, int64_t, int64_t, const Columns&,
                                 float);
  void (*gradient_sums[ACTIVATIONS])(const void*, const void*, int64_t, int64_t, int64_t,
                                     const Columns&, float, float*, float*);
  void (*gradient[ACTIVATIONS])(const void*, const void*, void*, int64_t, int64_t, int64_t,
                                const Columns&, float, float);
};

namespace baseline {
#include "loops.inc"
}
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define KERAS_BN_DISPATCH 1
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c,bmi2")
namespace avx2 {
#include "loops.inc"
}
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,fma,f16c,bmi2,prefer-vector-width=512")
namespace avx512 {
#include "loops.inc"
}
#pragma GCC pop_options
#endif

// The instruction set that is taken, by name.
inline const char* instruction_set() {
#ifdef KERAS_BN_DISPATCH
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
    return "avx512";
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
    return "avx2";  // all of these have F16C
#endif
  return "baseline";
}

inline const Loops& loops(Type type) {
#ifdef KERAS_BN_DISPATCH
  static const Loops* const chosen = instruction_set()[0] == 'b'   ? baseline::LOOPS
                                     : instruction_set()[3] == '5' ? avx512::LOOPS
                                                                   : avx2::LOOPS;
  return chosen[type];
#else
  return baseline::LOOPS[type];
#endif
}

// A tensor of shape (groups, before, channels, after), and how it is cut into tasks.
//
// Channels (nearly) last: one row holds the channels of one position, or of `fold` positions where
// they are few. Elsewhere: the values behind a channel are the columns of a row, all with the
// parameters of that channel.
class Layout {
 public:
  Layout(int64_t groups, int64_t before, int64_t channels, int64_t after, int64_t weight_covers)
      : groups(groups), before(before), channels(channels), after(after), covers(weight_covers) {
    const int64_t position = channels * after;
    by_rows = after < 16 && (covers == 0 || covers % position == 0);
    if (size() == 0) return;
    if (by_rows) {
      fold = covers ? 1 : std::max<int64_t>(1, std::min(before, 128 / position));
      width = fold * position;
      const int64_t rows = before / fold;
      const int64_t height = std::clamp<int64_t>((1 << 17) / width, 128, 512);
      strips = divide(rows, height);
      tile = width <= 1024 ? width : 1024;
      across = divide(width, tile);
      return;
    }
    width = channels;
    const int64_t longest = after <= 1024 ? after : std::min<int64_t>(after, 1 << 16);
    parts = divide(after, longest);
    height = after <= 1024 ? std::clamp<int64_t>((1 << 16) / after, 1, 512) : 1;
    strips = divide(before, height) * parts;
    tile = std::clamp<int64_t>((1 << 16) / (height * longest), 1, channels);
    across = divide(channels, tile);
  }

  int64_t size() const { return groups * before * channels * after; }
  int64_t values() const { return before * after; }  // of a channel of a group
  int64_t tasks() const { return size() == 0 ? 0 : groups * strips * across; }
  int64_t partials() const { return groups * strips * 2 * width; }

  // A piece of a task: `rows` rows of `columns` values that begin at element `offset`.
  struct Piece {
    int64_t offset, rows, stride, columns;
    int64_t column;  // where the parameters of its first column are, by rows; else its channel
  };

  // Calls visit(group, strip, piece) for each piece of a task.
  template <class Visit>
  void pieces(int64_t task, const Visit& visit) const {
    const int64_t group = task / (strips * across), strip = task / across % strips;
    const int64_t first = task % across * tile, last = std::min(first + tile, width);
    const int64_t start = group * before * channels * after, position = channels * after;
    if (by_rows) {
      const int64_t rows = before / fold, from = rows * strip / strips;
      const int64_t to = rows * (strip + 1) / strips;
      visit(group, strip,
            Piece{start + from * width + first, to - from, width, last - first, first});
      const int64_t left = before % fold;  // more positions, which do not fill a row
      if (left && strip == strips - 1)
        visit(group, strip,
              Piece{start + rows * width, left, position, position, 0});
      return;
    }
    const int64_t lines = strips / parts, line = strip / parts, part = strip % parts;
    const int64_t from = before * line / lines, to = before * (line + 1) / lines;
    const int64_t begin = after * part / parts, end = after * (part + 1) / parts;
    for (int64_t channel = first; channel < last; ++channel) {
      const int64_t offset = start + from * position + channel * after + begin;
      if (after <= 1024) {
        visit(group, strip, Piece{offset, to - from, position, after, channel});
        continue;
      }
      const int64_t length = end - begin, whole = length / 512 * 512;
      visit(group, strip, Piece{offset, whole / 512, 512, 512, channel});
      if (whole < length)
        visit(group, strip, Piece{offset + whole, 1, 512, length - whole, channel});
    }
  }

  const int64_t groups, before, channels, after;
  const int64_t covers;  // values of x that one weight stands for; 0 without weights
  bool by_rows;
  int64_t fold = 1, width = 0, strips = 0, across = 1, tile = 1, parts = 1, height = 1;

 private:
  static int64_t divide(int64_t a, int64_t b) { return (a + b - 1) / b; }
};

enum { COLUMNS = 1024 };  // that a piece has at most

// A tensor of any of the three types, in the memory of whoever holds it.
class Values {
 public:
  Values(Type type, void* data) : type_(type), data_(static_cast<char*>(data)) {}
  Values(Type type, const void* data) : Values(type, const_cast<void*>(data)) {}

  const Loops& loops() const { return keras_bn::loops(type_); }
  char* from(int64_t i) const { return data_ + i * (type_ == FLOAT32 ? 4 : 2); }
  float at(int64_t i) const { return loops().at(data_, i); }

 private:
  Type type_;
  char* data_;
};

// The weight of each row of a piece, in runs of rows that weigh the same.
template <class Body>
void weight_runs(const Layout& layout, const float* weights, const Layout::Piece& piece,
                 const Body& body) {
  if (weights == nullptr) return body(0, piece.rows, 1.0f);
  for (int64_t i = 0; i < piece.rows;) {
    const float w = weights[(piece.offset + i * piece.stride) / layout.covers];
    int64_t end = i + 1;
    while (end < piece.rows &&
           weights[(piece.offset + end * piece.stride) / layout.covers] == w)
      ++end;
    body(i, end - i, w);
    i = end;
  }
}

// Parameters of every column: (groups, channels) -> what a row's columns need.
class Spread {
 public:
  Spread(const Layout& layout, int arrays)
      : layout_(layout), values_(arrays * layout.groups * layout.width) {}

  // Sets parameter `array` of all groups, given as (groups, channels).
  void set(int array, const std::vector<float>& given) {
    float* to = values_.data() + array * layout_.groups * layout_.width;
    if (layout_.size() == 0) return;
    if (!layout_.by_rows) {
      std::copy(given.begin(), given.end(), to);
      return;
    }
    for (int64_t g = 0; g < layout_.groups; ++g)
      for (int64_t f = 0; f < layout_.fold; ++f)
        for (int64_t c = 0; c < layout_.channels; ++c)
          for (int64_t a = 0; a < layout_.after; ++a) *to++ = given[g * layout_.channels + c];
  }

  // Returns those of a piece; where its columns share one channel, `lanes` is filled with it.
  const float* columns(int array, int64_t group, const Layout::Piece& piece, float* lanes) const {
    const float* from =
        values_.data() + (array * layout_.groups + group) * layout_.width + piece.column;
    if (layout_.by_rows) return from;
    std::fill(lanes, lanes + piece.columns, *from);
    return lanes;
  }

 private:
  const Layout& layout_;
  std::vector<float> values_;
};

struct Statistics {  // each (groups, channels); see the top of this file
  std::vector<float> centre, delta, variance, total, squares;
};

// Adds two sums of each task's columns up, in the order of the strips: (groups, channels) doubles.
inline void merge(const Layout& layout, const std::vector<float>& partials,
                  std::vector<double>& first, std::vector<double>& second) {
  const int64_t width = layout.width, channels = layout.channels;
  first.assign(layout.groups * channels, 0.0);
  second.assign(layout.groups * channels, 0.0);
  std::vector<double> wide(2 * width);
  for (int64_t g = 0; g < layout.groups; ++g) {
    std::fill(wide.begin(), wide.end(), 0.0);
    for (int64_t s = 0; s < layout.strips; ++s) {
      const float* from = partials.data() + (g * layout.strips + s) * 2 * width;
      for (int64_t j = 0; j < 2 * width; ++j) wide[j] += from[j];
    }
    const int64_t repeats = layout.by_rows ? layout.after : 1;
    for (int64_t j = 0; j < width; ++j) {
      first[g * channels + j / repeats % channels] += wide[j];
      second[g * channels + j / repeats % channels] += wide[width + j];
    }
  }
}

// Runs a pass that sums two things for each column: sum(group, piece, first, second) adds to them.
template <class Sum>
void summing_pass(const Layout& layout, std::vector<double>& first, std::vector<double>& second,
                  const Sum& sum) {
  std::vector<float> partials(layout.partials(), 0.0f);
  Pool::instance().run(layout.tasks(), [&](int64_t task) {
    layout.pieces(task, [&](int64_t group, int64_t strip, const Layout::Piece& piece) {
      float* to = partials.data() + (group * layout.strips + strip) * 2 * layout.width;
      to += piece.column;
      if (layout.by_rows) return sum(group, piece, to, to + layout.width);
      float lanes[2][COLUMNS];
      for (float* lane : {lanes[0], lanes[1]}) std::fill(lane, lane + piece.columns, 0.0f);
      sum(group, piece, lanes[0], lanes[1]);
      double u = to[0], v = to[layout.width];
      for (int64_t j = 0; j < piece.columns; ++j) u += lanes[0][j], v += lanes[1][j];
      to[0] = static_cast<float>(u);
      to[layout.width] = static_cast<float>(v);
    });
  });
  merge(layout, partials, first, second);
}

// The mean of a few values of each channel that weigh something, spread over the positions by the
// golden ratio; 0 where that is not finite.
inline std::vector<float> sampled_mean(const Layout& layout, const Values& x,
                                       const float* weights) {
  const int64_t channels = layout.channels;
  std::vector<float> centre(layout.groups * channels, 0.0f);
  if (layout.size() == 0) return centre;
  const int samples = static_cast<int>(std::clamp<int64_t>(layout.values() / 32, 1, 16));
  std::vector<double> sum(channels);
  std::vector<int> count(channels);
  for (int64_t g = 0; g < layout.groups; ++g) {
    std::fill(sum.begin(), sum.end(), 0.0);
    std::fill(count.begin(), count.end(), 0);
    for (int i = 1; i <= samples; ++i) {
      const double place = std::fmod(i * 0.6180339887498949, 1.0);
      const double inner = std::fmod(i * 0.7548776662466927, 1.0);
      const int64_t row = g * layout.before + static_cast<int64_t>(place * layout.before);
      const int64_t from = row * channels * layout.after + static_cast<int64_t>(inner * layout.after);
      for (int64_t c = 0; c < channels; ++c) {
        const int64_t index = from + c * layout.after;
        if (weights && weights[index / layout.covers] == 0.0f) continue;
        sum[c] += x.at(index);
        ++count[c];
      }
    }
    for (int64_t c = 0; c < channels; ++c) {
      const float mean = static_cast<float>(sum[c] / std::max(count[c], 1));
      centre[g * channels + c] = std::isfinite(mean) ? mean : 0.0f;
    }
  }
  return centre;
}

// Sums of the weights and of their squares, for each channel.
inline void weigh(const Layout& layout, const float* weights, std::vector<double>& total,
                  std::vector<double>& squares) {
  const int64_t channels = layout.channels, position = channels * layout.after;
  const double values = static_cast<double>(layout.values());
  total.assign(layout.groups * channels, values);
  squares.assign(layout.groups * channels, values);
  if (weights == nullptr || layout.size() == 0) return;
  const bool shared = layout.covers % position == 0;  // all channels of a position weigh the same
  const int64_t each = layout.before * position / layout.covers;  // weights of a group
  for (int64_t g = 0; g < layout.groups; ++g) {
    for (int64_t c = 0; c < channels; ++c) {
      double sums[2][4] = {};
      const int64_t step = shared ? 1 : channels;
      const float* from = weights + g * each + (shared ? 0 : c);
      for (int64_t i = 0; i * step < each; ++i) {
        const double w = from[i * step];
        sums[0][i % 4] += w;
        sums[1][i % 4] += w * w;
      }
      const double repeats = static_cast<double>(shared ? layout.covers / channels : layout.covers);
      for (int64_t k = c; k < (shared ? channels : c + 1); ++k) {
        total[g * channels + k] =
            repeats * ((sums[0][0] + sums[0][1]) + (sums[0][2] + sums[0][3]));
        squares[g * channels + k] =
            repeats * ((sums[1][0] + sums[1][1]) + (sums[1][2] + sums[1][3]));
      }
      if (shared) break;
    }
  }
}

inline void sums_around(const Layout& layout, const Values& x, const float* weights,
                        const std::vector<float>& centre, std::vector<double>& first,
                        std::vector<double>& second) {
  Spread spread(layout, 1);
  spread.set(0, centre);
  const auto sum = [&](int64_t group, const Layout::Piece& piece, float* u, float* v) {
    float lanes[COLUMNS], runs[2][COLUMNS];
    const float* c = spread.columns(0, group, piece, lanes);
    weight_runs(layout, weights, piece, [&](int64_t start, int64_t count, float w) {
      if (w == 0.0f) return;  // what weighs nothing may be NaN
      const void* from = x.from(piece.offset + start * piece.stride);
      if (w == 1.0f) return x.loops().sums(from, count, piece.stride, piece.columns, c, u, v);
      if (count < 8) {
        for (int64_t i = start; i < start + count; ++i)
          x.loops().weighted_sums(x.from(piece.offset + i * piece.stride), w, piece.columns, c, u, v);
        return;
      }
      for (float* run : {runs[0], runs[1]}) std::fill(run, run + piece.columns, 0.0f);
      x.loops().sums(from, count, piece.stride, piece.columns, c, runs[0], runs[1]);
      for (int64_t j = 0; j < piece.columns; ++j) u[j] += w * runs[0][j], v[j] += w * runs[1][j];
    });
  };
  summing_pass(layout, first, second, sum);
}

// Pass 1: the statistics of a batch. Zeros where nothing has weight; a NaN stays.
inline Statistics sums(const Layout& layout, const Values& x, const float* weights) {
  const FlushSubnormals flush;
  const size_t size = layout.groups * layout.channels;
  Statistics found;
  found.centre = sampled_mean(layout, x, weights);
  std::vector<double> first, second, total, squares;
  weigh(layout, weights, total, squares);
  for (bool again = false;; again = true) {
    sums_around(layout, x, weights, found.centre, first, second);
    bool far = false;
    for (auto* statistic : {&found.delta, &found.variance, &found.total, &found.squares})
      statistic->resize(size);
    std::vector<float> better = found.centre;
    for (size_t i = 0; i < size; ++i) {
      const double delta = total[i] == 0.0 ? 0.0 : first[i] / total[i];
      const double square = total[i] == 0.0 ? 0.0 : second[i] / total[i];
      const double variance = square - delta * delta;
      found.delta[i] = static_cast<float>(delta);
      found.variance[i] = static_cast<float>(variance < 0.0 ? 0.0 : variance);
      found.total[i] = static_cast<float>(total[i]);
      found.squares[i] = static_cast<float>(squares[i]);
      const float mean = static_cast<float>(found.centre[i] + delta);
      if (delta * delta > 64.0 * variance && std::isfinite(mean) &&
          std::fabs(delta) > 1e-6 * std::fabs(mean)) {
        better[i] = mean;
        far = true;
      }
    }
    if (!far || again) return found;
    found.centre = better;
  }
}

// a and b of z = a (x - c) + b, each (groups, channels).
inline void affine(const Layout& layout, const Statistics& s, const float* gamma, const float* beta,
                   float epsilon, std::vector<float>& a, std::vector<float>& b) {
  const int64_t channels = layout.channels;
  a.resize(layout.groups * channels);
  b.resize(layout.groups * channels);
  for (size_t i = 0; i < a.size(); ++i) {
    const double scale = gamma[i % channels] / std::sqrt(double{s.variance[i]} + epsilon);
    a[i] = static_cast<float>(scale);
    b[i] = static_cast<float>(beta[i % channels] - scale * s.delta[i]);
  }
}

struct Activation {
  int kind;        // its place in `LOOPS`
  float negative;  // slope of a leaky ReLU below 0
};

// Pass 2: y = f(a (x - c) + b); y may be x. From the end of the tensor, which pass 1 saw last.
inline void normalise(const Layout& layout, const Values& x, const Values& y, const Statistics& s,
                      const float* gamma, const float* beta, float epsilon, Activation f) {
  std::vector<float> a, b;
  affine(layout, s, gamma, beta, epsilon, a, b);
  Spread spread(layout, 3);
  spread.set(0, a), spread.set(1, b), spread.set(2, s.centre);
  const int64_t tasks = layout.tasks();
  Pool::instance().run(tasks, [&](int64_t task) {
    layout.pieces(tasks - 1 - task, [&](int64_t group, int64_t, const Layout::Piece& piece) {
      float lanes[3][COLUMNS];
      const Columns all = {spread.columns(0, group, piece, lanes[0]),
                           spread.columns(1, group, piece, lanes[1]),
                           spread.columns(2, group, piece, lanes[2]), nullptr, nullptr};
      x.loops().normalise[f.kind](x.from(piece.offset), y.from(piece.offset), piece.rows,
                                  piece.stride, piece.columns, all, f.negative);
    });
  });
}

// Pass 3: s = sum dz and t = sum dz (x - mean), each (groups, channels).
inline void gradient_sums(const Layout& layout, const Values& dy, const Values& x,
                          const Statistics& s, const float* gamma, const float* beta, float epsilon,
                          Activation f, float* first, float* second) {
  const FlushSubnormals flush;
  std::vector<float> a, b;
  affine(layout, s, gamma, beta, epsilon, a, b);
  Spread spread(layout, 3);
  spread.set(0, a), spread.set(1, b), spread.set(2, s.centre);
  const auto sum = [&](int64_t group, const Layout::Piece& piece, float* u, float* v) {
    float lanes[3][COLUMNS];
    const Columns all = {spread.columns(0, group, piece, lanes[0]),
                         spread.columns(1, group, piece, lanes[1]),
                         spread.columns(2, group, piece, lanes[2]), nullptr, nullptr};
    x.loops().gradient_sums[f.kind](dy.from(piece.offset), x.from(piece.offset), piece.rows,
                                    piece.stride, piece.columns, all, f.negative, u, v);
  };
  std::vector<double> u, v;
  summing_pass(layout, u, v, sum);
  for (size_t i = 0; i < u.size(); ++i) {
    first[i] = static_cast<float>(u[i]);
    second[i] = static_cast<float>(v[i] - s.delta[i] * u[i]);
  }
}

// Pass 4: dx = a dz + w (p (x - c) + q); dx may be dy. `first` and `second` are what pass 3 found,
// over all that was normalised together.
inline void gradient(const Layout& layout, const Values& dy, const Values& x, const Values& dx,
                     const float* weights, const Statistics& s, const float* gamma,
                     const float* beta, float epsilon, Activation f, const float* first,
                     const float* second) {
  std::vector<float> a, b, p(layout.groups * layout.channels), q(p.size());
  affine(layout, s, gamma, beta, epsilon, a, b);
  for (size_t i = 0; i < p.size(); ++i) {
    const double share = s.total[i] == 0.0f ? 0.0 : double{a[i]} / s.total[i];
    const double slope = -share * second[i] / (double{s.variance[i]} + epsilon);
    p[i] = static_cast<float>(slope);
    q[i] = static_cast<float>(-share * first[i] - slope * s.delta[i]);
  }
  Spread spread(layout, 5);
  spread.set(0, a), spread.set(1, b), spread.set(2, s.centre), spread.set(3, p), spread.set(4, q);
  const int64_t tasks = layout.tasks();
  Pool::instance().run(tasks, [&](int64_t task) {
    layout.pieces(tasks - 1 - task, [&](int64_t group, int64_t, const Layout::Piece& piece) {
      float lanes[5][COLUMNS];
      const float* columns_of[5];
      for (int k = 0; k < 5; ++k) columns_of[k] = spread.columns(k, group, piece, lanes[k]);
      const Columns all = {columns_of[0], columns_of[1], columns_of[2], columns_of[3],
                           columns_of[4]};
      weight_runs(layout, weights, piece, [&](int64_t start, int64_t count, float w) {
        const int64_t from = piece.offset + start * piece.stride;
        x.loops().gradient[f.kind](dy.from(from), x.from(from), dx.from(from), count, piece.stride,
                                   piece.columns, all, w, f.negative);
      });
    });
  });
}

// New running statistics, each (channels); returns whether the batch was usable.
//
//     moving <- momentum moving + (1 - momentum) batch
//
// The batch's mean and variance are averages over the groups that have any weight; the variance of
// each times n / (n - 1), n = W^2 / sum w^2, if `bessel`. A batch in which a channel has no weight,
// or a mean square that is no finite float32, is not usable; `skip` leaves `moving` as it was then.
inline bool update(const Layout& layout, const Statistics& s, const float* moving_mean,
                   const float* moving_variance, float momentum, bool bessel, bool skip,
                   float* new_mean, float* new_variance) {
  const int64_t channels = layout.channels;
  bool usable = true;
  for (int64_t c = 0; c < channels; ++c) {
    double mean = 0.0, variance = 0.0, groups = 0.0;
    for (int64_t i = c; i < layout.groups * channels; i += channels) {
      if (!(s.total[i] > 0.0f)) {
        usable = usable && s.total[i] == 0.0f;  // not NaN
        continue;
      }
      const double n = double{s.total[i]} * s.total[i] / s.squares[i];
      mean += double{s.centre[i]} + s.delta[i];
      variance += s.variance[i] * (bessel && n > 1.0 ? n / (n - 1.0) : 1.0);
      groups += 1.0;
    }
    const double share = groups > 0.0 ? 1.0 / groups : 0.0;
    const double square = share * share * mean * mean + share * variance;
    usable = usable && groups > 0.0 && std::isfinite(static_cast<float>(square));
    const double past = momentum, now = 1.0 - past;
    new_mean[c] = static_cast<float>(past * moving_mean[c] + now * share * mean);
    new_variance[c] = static_cast<float>(past * moving_variance[c] + now * share * variance);
  }
  if (skip && !usable) {
    std::copy(moving_mean, moving_mean + channels, new_mean);
    std::copy(moving_variance, moving_variance + channels, new_variance);
  }
  return usable;
}

}  // namespace keras_bn
