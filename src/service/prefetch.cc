#include "service/prefetch.h"

#include <variant>

namespace tensorforge::service {
namespace {

/// Of a command or an event, whichever way it names what it is about.
struct Prefetch {
  const State& state;
  PrefetchStep step;

  void operator()(const query::GetModel& q) const { state.registry.prefetch(step, q.model_id, q.version); }
  template <class... Kinds>
  void operator()(const std::variant<Kinds...>& any) const {
    std::visit(*this, any);
  }
  template <class Change>
  void operator()(const Change& change) const {
    if constexpr (requires { change.model.view(); }) {
      const registry::ModelView model = change.model.view();
      state.registry.prefetch(step, model.model_id, model.version);
    } else if constexpr (requires { change.validation.model_id; }) {
      state.registry.prefetch(step, change.validation.model_id, change.validation.version);
    } else if constexpr (requires { change.model_id, change.version.major; }) {
      state.registry.prefetch(step, change.model_id, change.version);
    } else if constexpr (requires { change.device_id, change.request.tensor_id; }) {
      state.gpu_memory.prefetch(step, change.device_id, change.request);
    } else if constexpr (requires { change.device_id, change.block_id; }) {
      state.gpu_memory.prefetch(step, change.device_id, change.block_id);
    } else if constexpr (requires { change.device_id, change.block; }) {
      state.gpu_memory.prefetch(step, change.device_id, change.block);
    }
  }
};

}  // namespace

void prefetch(const State& state, PrefetchStep step, const Request& request) {
  std::visit(Prefetch{state, step}, request.body);
}

void prefetch(const State& state, PrefetchStep step, const Event& event) { std::visit(Prefetch{state, step}, event); }

}  // namespace tensorforge::service
