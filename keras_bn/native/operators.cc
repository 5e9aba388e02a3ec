// The passes of `kernel.h` as operators of TensorFlow, through its C API.
//
// That API is a C ABI which TensorFlow keeps between releases: one build serves them all, and needs
// no header of theirs. Its functions are looked up in the process when this library is loaded. What
// went wrong then, `keras_bn_failure` tells; the operators are registered only if nothing did.
//
// `moments` has the shape (groups, 5, C): centre, delta, variance, total, squares (see kernel.h).
#include <dlfcn.h>

#include <exception>
#include <memory>
#include <stdexcept>
#include <string>

#include "kernel.h"

namespace {

using keras_bn::Activation;
using keras_bn::Layout;
using keras_bn::Statistics;
using keras_bn::Values;

struct TF_Status;
struct TF_Tensor;
struct TF_OpDefinitionBuilder;
struct TF_KernelBuilder;
struct TF_OpKernelConstruction;
struct TF_OpKernelContext;
struct TF_ShapeInferenceContext;
struct TF_ShapeHandle;

enum { TF_FLOAT = 1, TF_INT32 = 3, TF_BFLOAT16 = 14, TF_HALF = 19 };  // tf_datatype.h
enum { TF_INVALID_ARGUMENT = 3, TF_RESOURCE_EXHAUSTED = 8, TF_INTERNAL = 13 };  // tf_status.h

// Every function that is used: result, name, arguments.
#define API(F)                                                                                     \
  F(TF_Status*, TF_NewStatus, ())                                                                  \
  F(void, TF_DeleteStatus, (TF_Status*))                                                           \
  F(void, TF_SetStatus, (TF_Status*, int, const char*))                                            \
  F(int, TF_GetCode, (const TF_Status*))                                                           \
  F(const char*, TF_Message, (const TF_Status*))                                                   \
  F(int, TF_NumDims, (const TF_Tensor*))                                                           \
  F(int64_t, TF_Dim, (const TF_Tensor*, int))                                                      \
  F(int, TF_TensorType, (const TF_Tensor*))                                                        \
  F(void*, TF_TensorData, (const TF_Tensor*))                                                      \
  F(void, TF_DeleteTensor, (TF_Tensor*))                                                           \
  F(TF_OpDefinitionBuilder*, TF_NewOpDefinitionBuilder, (const char*))                             \
  F(void, TF_OpDefinitionBuilderAddAttr, (TF_OpDefinitionBuilder*, const char*))                   \
  F(void, TF_OpDefinitionBuilderAddInput, (TF_OpDefinitionBuilder*, const char*))                  \
  F(void, TF_OpDefinitionBuilderAddOutput, (TF_OpDefinitionBuilder*, const char*))                 \
  F(void, TF_OpDefinitionBuilderSetShapeInferenceFunction,                                         \
    (TF_OpDefinitionBuilder*, void (*)(TF_ShapeInferenceContext*, TF_Status*)))                    \
  F(void, TF_RegisterOpDefinition, (TF_OpDefinitionBuilder*, TF_Status*))                          \
  F(TF_KernelBuilder*, TF_NewKernelBuilder,                                                        \
    (const char*, const char*, void* (*)(TF_OpKernelConstruction*),                                \
     void (*)(void*, TF_OpKernelContext*), void (*)(void*)))                                       \
  F(void, TF_KernelBuilder_TypeConstraint, (TF_KernelBuilder*, const char*, int, TF_Status*))      \
  F(void, TF_RegisterKernelBuilder, (const char*, TF_KernelBuilder*, TF_Status*))                  \
  F(void, TF_OpKernelConstruction_GetAttrInt64,                                                    \
    (TF_OpKernelConstruction*, const char*, int64_t*, TF_Status*))                                 \
  F(void, TF_OpKernelConstruction_GetAttrFloat,                                                    \
    (TF_OpKernelConstruction*, const char*, float*, TF_Status*))                                   \
  F(void, TF_OpKernelConstruction_GetAttrBool,                                                     \
    (TF_OpKernelConstruction*, const char*, unsigned char*, TF_Status*))                           \
  F(bool, TF_OpKernelConstruction_HasAttr, (TF_OpKernelConstruction*, const char*, TF_Status*))    \
  F(void, TF_OpKernelConstruction_Failure, (TF_OpKernelConstruction*, TF_Status*))                 \
  F(int, TF_NumInputs, (TF_OpKernelContext*))                                                      \
  F(void, TF_GetInput, (TF_OpKernelContext*, int, TF_Tensor**, TF_Status*))                        \
  F(TF_Tensor*, TF_AllocateOutput,                                                                 \
    (TF_OpKernelContext*, int, int, const int64_t*, int, size_t, TF_Status*))                      \
  F(TF_Tensor*, TF_ForwardInputOrAllocateOutput,                                                   \
    (TF_OpKernelContext*, const int*, int, int, const int64_t*, int, int*, TF_Status*))            \
  F(void, TF_OpKernelContext_Failure, (TF_OpKernelContext*, TF_Status*))                           \
  F(TF_ShapeHandle*, TF_NewShapeHandle, ())                                                        \
  F(void, TF_DeleteShapeHandle, (TF_ShapeHandle*))                                                 \
  F(void, TF_ShapeInferenceContextGetInput,                                                        \
    (TF_ShapeInferenceContext*, int, TF_ShapeHandle*, TF_Status*))                                 \
  F(void, TF_ShapeInferenceContextSetOutput,                                                       \
    (TF_ShapeInferenceContext*, int, TF_ShapeHandle*, TF_Status*))                                 \
  F(void, TF_ShapeInferenceContextSetUnknownShape, (TF_ShapeInferenceContext*, TF_Status*))

#define DECLARE(result, name, arguments) result(*name) arguments = nullptr;
API(DECLARE)
#undef DECLARE

// Throws what `status` says, if it says that something failed.
void check(const TF_Status* status) {
  if (TF_GetCode(status) != 0) throw std::runtime_error(TF_Message(status));
}

[[noreturn]] void refuse(const std::string& what) {
  throw std::invalid_argument("keras_bn: " + what);
}

class Status {
 public:
  ~Status() { TF_DeleteStatus(get); }
  TF_Status* const get = TF_NewStatus();
};

// Sets `status` to the exception that is being handled.
void describe_exception(TF_Status* status) {
  try {
    throw;
  } catch (const std::invalid_argument& e) {
    TF_SetStatus(status, TF_INVALID_ARGUMENT, e.what());
  } catch (const std::bad_alloc&) {
    TF_SetStatus(status, TF_RESOURCE_EXHAUSTED, "keras_bn: out of memory");
  } catch (const std::exception& e) {
    TF_SetStatus(status, TF_INTERNAL, e.what());
  }
}

class Tensor {
 public:
  explicit Tensor(TF_Tensor* tensor) : tensor_(tensor) {}
  Tensor(Tensor&& other) noexcept : tensor_(other.tensor_) { other.tensor_ = nullptr; }
  Tensor(const Tensor&) = delete;
  ~Tensor() {
    if (tensor_) TF_DeleteTensor(tensor_);
  }

  std::vector<int64_t> shape() const {
    std::vector<int64_t> sizes(TF_NumDims(tensor_));
    for (size_t i = 0; i < sizes.size(); ++i) sizes[i] = TF_Dim(tensor_, static_cast<int>(i));
    return sizes;
  }
  int type() const { return TF_TensorType(tensor_); }
  float* floats() const { return static_cast<float*>(TF_TensorData(tensor_)); }
  Values values() const {
    const int which = type();
    return {which == TF_FLOAT      ? keras_bn::FLOAT32
            : which == TF_BFLOAT16 ? keras_bn::BFLOAT16
                                   : keras_bn::FLOAT16,
            TF_TensorData(tensor_)};
  }

 private:
  TF_Tensor* tensor_;
};

int64_t count(const std::vector<int64_t>& shape) {
  int64_t all = 1;
  for (const int64_t size : shape) all *= size;
  return all;
}

std::string words(const std::vector<int64_t>& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

// What a node is told when its graph is made.
struct Options {
  explicit Options(TF_OpKernelConstruction* context) {
    const Status status;
    integer(context, "axis", axis, status);
    integer(context, "ghost_batch_size", ghost, status);
    integer(context, "activation", activation, status);
    number(context, "epsilon", epsilon, status);
    number(context, "negative_slope", negative, status);
    flag(context, "bessel_correction", bessel, status);
    flag(context, "skip_nonfinite", skip, status);
    if (activation < 0 || activation >= keras_bn::ACTIVATIONS)
      refuse("`activation` must be the number of one. Received: " + std::to_string(activation));
    if (ghost < 0)
      refuse("`ghost_batch_size` must be >= 0. Received: " + std::to_string(ghost));
  }

  Activation f() const { return {static_cast<int>(activation), negative}; }

  int64_t axis = -1, ghost = 0, activation = 0;
  float epsilon = 0.0f, negative = 0.0f;
  bool bessel = true, skip = true;

 private:
  template <class Get, class Value>
  static void get(TF_OpKernelConstruction* context, const char* name, Value& value, Get get,
                  const Status& status) {
    const bool present = TF_OpKernelConstruction_HasAttr(context, name, status.get);
    check(status.get);
    if (!present) return;
    get(context, name, &value, status.get);
    check(status.get);
  }
  static void integer(TF_OpKernelConstruction* c, const char* n, int64_t& v, const Status& s) {
    get(c, n, v, TF_OpKernelConstruction_GetAttrInt64, s);
  }
  static void number(TF_OpKernelConstruction* c, const char* n, float& v, const Status& s) {
    get(c, n, v, TF_OpKernelConstruction_GetAttrFloat, s);
  }
  static void flag(TF_OpKernelConstruction* c, const char* n, bool& v, const Status& s) {
    unsigned char byte = v;
    get(c, n, byte, TF_OpKernelConstruction_GetAttrBool, s);
    v = byte != 0;
  }
};

// One call of an operator: its inputs, checked, and its outputs.
class Call {
 public:
  explicit Call(TF_OpKernelContext* context) : context_(context) {}

  Tensor input(int i) const {
    TF_Tensor* tensor = nullptr;
    TF_GetInput(context_, i, &tensor, status_.get);
    check(status_.get);
    return Tensor(tensor);
  }

  // An input that must have some shape.
  Tensor input(int i, const char* name, const std::vector<int64_t>& shape) const {
    Tensor tensor = input(i);
    if (tensor.shape() != shape)
      refuse(std::string("`") + name + "` must have the shape " + words(shape) +
             ". Received: " + words(tensor.shape()));
    return tensor;
  }

  Tensor output(int i, int type, const std::vector<int64_t>& shape) const {
    const size_t bytes = count(shape) * (type == TF_FLOAT || type == TF_INT32 ? 4 : 2);
    TF_Tensor* tensor = TF_AllocateOutput(context_, i, type, shape.data(),
                                          static_cast<int>(shape.size()), bytes, status_.get);
    check(status_.get);
    return Tensor(tensor);
  }

  // The output takes over the memory of input `from` where nobody else reads that. No `Tensor` of
  // that input may exist yet.
  Tensor output_in_place(int from, int i, const std::vector<int64_t>& shape) const {
    int taken = -1;
    TF_Tensor* tensor =
        TF_ForwardInputOrAllocateOutput(context_, &from, 1, i, shape.data(),
                                        static_cast<int>(shape.size()), &taken, status_.get);
    check(status_.get);
    return Tensor(tensor);
  }

  int inputs() const { return TF_NumInputs(context_); }

 private:
  TF_OpKernelContext* context_;
  const Status status_;
};

// How `x` is seen; `weights` is the last input of `call` if there are more than `fixed`. Their shape
// is a leading part of that of `x`.
Layout layout_of(const Call& call, const Options& options, const std::vector<int64_t>& shape,
                 int fixed = 1 << 30) {
  const int64_t rank = static_cast<int64_t>(shape.size());
  const int64_t axis = options.axis < 0 ? options.axis + rank : options.axis;
  if (axis < 0 || axis >= rank)
    refuse("`axis` must be one of the input's. Received: axis=" + std::to_string(options.axis) +
           ", shape " + words(shape));
  int64_t before = 1, after = 1, groups = 1;
  for (int64_t i = 0; i < rank; ++i) (i < axis ? before : i > axis ? after : groups) *= shape[i];
  groups = 1;
  if (options.ghost > 0) {
    if (axis == 0)
      refuse("`ghost_batch_size` must be 0 where `axis` is the batch axis. Received: " +
             std::to_string(options.ghost));
    if (shape[0] % options.ghost)
      refuse("`ghost_batch_size` must divide the batch size. Received: ghost_batch_size=" +
             std::to_string(options.ghost) + ", batch size " + std::to_string(shape[0]));
    groups = shape[0] / options.ghost;
    before = groups ? before / groups : 0;
  }
  int64_t covers = 0;
  if (call.inputs() > fixed) {
    const std::vector<int64_t> weights = call.input(fixed).shape();
    const bool leading = weights.size() <= shape.size() && !weights.empty() &&
                         std::equal(weights.begin(), weights.end(), shape.begin());
    if (!leading || static_cast<int64_t>(weights.size()) > axis + (axis < rank - 1))
      refuse("`weights` must have a leading part of the input's shape, up to the channels. "
             "Received: " + words(weights) + " for " + words(shape));
    covers = 1;
    for (size_t i = weights.size(); i < shape.size(); ++i) covers *= shape[i];
    covers = std::max<int64_t>(covers, 1);
  }
  return {groups, before, shape[axis], after, covers};
}

std::unique_ptr<Tensor> weights_of(const Call& call, int fixed) {
  if (call.inputs() <= fixed) return nullptr;
  return std::make_unique<Tensor>(call.input(fixed));
}

const float* floats(const std::unique_ptr<Tensor>& tensor) {
  return tensor ? tensor->floats() : nullptr;
}

Statistics statistics_of(const Layout& layout, const Tensor& moments) {
  Statistics s;
  const int64_t channels = layout.channels;
  std::vector<float>* rows[] = {&s.centre, &s.delta, &s.variance, &s.total, &s.squares};
  for (int k = 0; k < 5; ++k) {
    rows[k]->reserve(layout.groups * channels);
    for (int64_t g = 0; g < layout.groups; ++g) {
      const float* from = moments.floats() + (g * 5 + k) * channels;
      rows[k]->insert(rows[k]->end(), from, from + channels);
    }
  }
  return s;
}

void sums(const Options& options, const Call& call) {
  const Tensor x = call.input(0);
  const Layout layout = layout_of(call, options, x.shape(), 4);
  const int64_t channels = layout.channels;
  const Tensor moving_mean = call.input(1, "moving_mean", {channels});
  const Tensor moving_variance = call.input(2, "moving_variance", {channels});
  const Tensor momentum = call.input(3, "momentum", {});
  const auto weights = weights_of(call, 4);
  const Statistics s = keras_bn::sums(layout, x.values(), floats(weights));
  const Tensor moments = call.output(0, TF_FLOAT, {layout.groups, 5, channels});
  const std::vector<float>* rows[] = {&s.centre, &s.delta, &s.variance, &s.total, &s.squares};
  for (int64_t g = 0; g < layout.groups; ++g)
    for (int k = 0; k < 5; ++k)
      std::copy_n(rows[k]->data() + g * channels, channels,
                  moments.floats() + (g * 5 + k) * channels);
  const Tensor new_mean = call.output(1, TF_FLOAT, {channels});
  const Tensor new_variance = call.output(2, TF_FLOAT, {channels});
  const bool usable = keras_bn::update(
      layout, s, moving_mean.floats(), moving_variance.floats(), *momentum.floats(),
      options.bessel, options.skip, new_mean.floats(), new_variance.floats());
  const int32_t skipped = options.skip && !usable;
  std::memcpy(call.output(3, TF_INT32, {}).floats(), &skipped, sizeof skipped);
}

void normalise(const Options& options, const Call& call) {
  const Tensor x = call.input(0);
  const Layout layout = layout_of(call, options, x.shape());
  const Tensor moments = call.input(1, "moments", {layout.groups, 5, layout.channels});
  const Tensor gamma = call.input(2, "gamma", {layout.channels});
  const Tensor beta = call.input(3, "beta", {layout.channels});
  const Tensor y = call.output(0, x.type(), x.shape());
  keras_bn::normalise(layout, x.values(), y.values(), statistics_of(layout, moments),
                      gamma.floats(), beta.floats(), options.epsilon, options.f());
}

void gradient_sums(const Options& options, const Call& call) {
  const Tensor x = call.input(1);
  const Tensor dy = call.input(0, "dy", x.shape());
  const Layout layout = layout_of(call, options, x.shape());
  const Tensor moments = call.input(2, "moments", {layout.groups, 5, layout.channels});
  const Tensor gamma = call.input(3, "gamma", {layout.channels});
  const Tensor beta = call.input(4, "beta", {layout.channels});
  const int64_t size = layout.groups * layout.channels;
  const Tensor found = call.output(0, TF_FLOAT, {2, layout.groups, layout.channels});
  keras_bn::gradient_sums(layout, dy.values(), x.values(), statistics_of(layout, moments),
                          gamma.floats(), beta.floats(), options.epsilon, options.f(),
                          found.floats(), found.floats() + size);
}

void gradient(const Options& options, const Call& call) {
  const Tensor x = call.input(1);
  const Layout layout = layout_of(call, options, x.shape(), 7);
  const int64_t channels = layout.channels, size = layout.groups * channels;
  const Tensor moments = call.input(2, "moments", {layout.groups, 5, channels});
  const Tensor gamma = call.input(3, "gamma", {channels});
  const Tensor beta = call.input(4, "beta", {channels});
  const Tensor all = call.input(5, "all_sums", {2, layout.groups, channels});
  const Tensor own = call.input(6, "own_sums", {2, layout.groups, channels});
  const auto weights = weights_of(call, 7);
  call.input(0, "dy", x.shape());  // and let go of it again
  const Tensor dx = call.output_in_place(0, 0, x.shape());
  const Tensor dy = call.input(0);
  const Statistics s = statistics_of(layout, moments);
  keras_bn::gradient(layout, dy.values(), x.values(), dx.values(), floats(weights), s,
                     gamma.floats(), beta.floats(), options.epsilon, options.f(), all.floats(),
                     all.floats() + size);
  const Tensor dgamma = call.output(1, TF_FLOAT, {channels});
  const Tensor dbeta = call.output(2, TF_FLOAT, {channels});
  for (int64_t c = 0; c < channels; ++c) {
    double first = 0.0, second = 0.0;
    for (int64_t i = c; i < size; i += channels) {
      first += own.floats()[i];
      second += own.floats()[size + i] / std::sqrt(double{s.variance[i]} + options.epsilon);
    }
    dgamma.floats()[c] = static_cast<float>(second);
    dbeta.floats()[c] = static_cast<float>(first);
  }
}

template <void (*Function)(const Options&, const Call&)>
void compute(void* options, TF_OpKernelContext* context) {
  try {
    const Call call(context);
    Function(*static_cast<const Options*>(options), call);
  } catch (...) {
    const Status status;
    describe_exception(status.get);
    TF_OpKernelContext_Failure(context, status.get);
  }
}

void* create(TF_OpKernelConstruction* context) {
  try {
    return new Options(context);
  } catch (...) {
    const Status status;
    describe_exception(status.get);
    TF_OpKernelConstruction_Failure(context, status.get);
    return nullptr;
  }
}

void destroy(void* options) { delete static_cast<Options*>(options); }

// Output i of an operator has the shape of an input: that of `From[i]`.
template <int... From>
void shapes(TF_ShapeInferenceContext* context, TF_Status* status) {
  TF_ShapeInferenceContextSetUnknownShape(context, status);
  TF_ShapeHandle* handle = TF_NewShapeHandle();
  int output = 0;
  for (const int from : {From...}) {
    if (from >= 0) {
      TF_ShapeInferenceContextGetInput(context, from, handle, status);
      if (TF_GetCode(status) == 0)
        TF_ShapeInferenceContextSetOutput(context, output, handle, status);
    }
    ++output;
  }
  TF_DeleteShapeHandle(handle);
}

struct Operator {
  const char* name;
  std::vector<const char*> inputs, outputs, attributes;
  void (*infer)(TF_ShapeInferenceContext*, TF_Status*);
  void (*compute)(void*, TF_OpKernelContext*);
};

const char *const TYPE = "T: {half, bfloat16, float}", *const AXIS = "axis: int",
                  *const GHOST = "ghost_batch_size: int = 0",
                  *const WEIGHTS = "weights: weighted * float",
                  *const WEIGHTED = "weighted: int >= 0", *const EPSILON = "epsilon: float",
                  *const KIND = "activation: int = 0", *const SLOPE = "negative_slope: float = 0.0",
                  *const SYNCHRONIZED = "synchronized: bool = false";

std::vector<Operator> operators() {
  return {
      {"KerasBnSums",
       {"x: T", "moving_mean: float", "moving_variance: float", "momentum: float", WEIGHTS},
       {"moments: float", "new_mean: float", "new_variance: float", "skipped: int32"},
       {TYPE, AXIS, GHOST, WEIGHTED, "bessel_correction: bool = true",
        "skip_nonfinite: bool = true"},
       shapes<-1, 1, 2, 3>,
       compute<sums>},
      {"KerasBnNormalise",
       {"x: T", "moments: float", "gamma: float", "beta: float", WEIGHTS},
       {"y: T"},
       {TYPE, AXIS, GHOST, WEIGHTED, EPSILON, KIND, SLOPE, SYNCHRONIZED},
       shapes<0>,
       compute<normalise>},
      {"KerasBnGradientSums",
       {"dy: T", "x: T", "moments: float", "gamma: float", "beta: float"},
       {"sums: float"},
       {TYPE, AXIS, GHOST, EPSILON, KIND, SLOPE},
       shapes<-1>,
       compute<gradient_sums>},
      {"KerasBnGradient",
       {"dy: T", "x: T", "moments: float", "gamma: float", "beta: float", "all_sums: float",
        "own_sums: float", WEIGHTS},
       {"dx: T", "dgamma: float", "dbeta: float"},
       {TYPE, AXIS, GHOST, WEIGHTED, EPSILON, KIND, SLOPE, SYNCHRONIZED},
       shapes<1, 3, 3>,
       compute<gradient>},
  };
}

std::string register_all() {
  void* tensorflow = dlopen("libtensorflow_framework.so.2", RTLD_NOLOAD | RTLD_NOW);
  if (tensorflow == nullptr) return "libtensorflow_framework.so.2 is not loaded in this process";
#define FIND(result, name, arguments)                                        \
  name = reinterpret_cast<result(*) arguments>(dlsym(tensorflow, #name));    \
  if (name == nullptr) return "this TensorFlow has no function " #name;
  API(FIND)
#undef FIND
  try {
    const Status status;
    for (const Operator& op : operators()) {
      TF_OpDefinitionBuilder* definition = TF_NewOpDefinitionBuilder(op.name);
      for (const char* text : op.attributes) TF_OpDefinitionBuilderAddAttr(definition, text);
      for (const char* text : op.inputs) TF_OpDefinitionBuilderAddInput(definition, text);
      for (const char* text : op.outputs) TF_OpDefinitionBuilderAddOutput(definition, text);
      TF_OpDefinitionBuilderSetShapeInferenceFunction(definition, op.infer);
      TF_RegisterOpDefinition(definition, status.get);
      check(status.get);
      for (const int type : {TF_FLOAT, TF_BFLOAT16, TF_HALF}) {
        TF_KernelBuilder* builder =
            TF_NewKernelBuilder(op.name, "CPU", create, op.compute, destroy);
        TF_KernelBuilder_TypeConstraint(builder, "T", type, status.get);
        check(status.get);
        TF_RegisterKernelBuilder(op.name, builder, status.get);
        check(status.get);
      }
    }
  } catch (const std::exception& e) {
    return e.what();
  }
  return "";
}

std::string& failure() {
  static std::string* text = new std::string("it was not initialised");
  return *text;
}

__attribute__((constructor)) void initialise() { failure() = register_all(); }

}  // namespace

extern "C" {
// Why the operators are not registered; empty if they are.
__attribute__((visibility("default"))) const char* keras_bn_failure() {
  return failure().c_str();
}
// How many threads work on one operator; 0 stands for one a CPU.
__attribute__((visibility("default"))) void keras_bn_set_threads(int threads) {
  keras_bn::Pool::instance().set_threads(threads);
}
// The instruction set that is taken: "avx512", "avx2" or "baseline".
__attribute__((visibility("default"))) const char* keras_bn_instruction_set() {
  return keras_bn::instruction_set();
}
}
