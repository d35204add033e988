#include "service/prefetch.h"

#include <type_traits>

namespace tensorforge::service {

/// Finds out what a command, a query or an event is about, whichever way it names that.
struct Prefetch::Finder {
  const State& state;
  decltype(Prefetch::of_)& of;

  void operator()(const query::GetModel& q) const { about_version(q.model_id, q.version); }
  template <class... Kinds>
  void operator()(const std::variant<Kinds...>& any) const {
    std::visit(*this, any);
  }
  template <class Change>
  void operator()(const Change& change) const {
    if constexpr (requires { change.model.view(); }) {
      const registry::ModelView model = change.model.view();
      about_version(model.model_id, model.version);
    } else if constexpr (requires { change.validation.model_id; }) {
      about_version(change.validation.model_id, change.validation.version);
    } else if constexpr (requires { change.model_id, change.version.major; }) {
      about_version(change.model_id, change.version);
    } else if constexpr (requires { change.device_id, change.request.tensor_id; }) {
      of.emplace<gpu_memory::Prefetch>(state.gpu_memory, change.device_id, change.request);
    } else if constexpr (requires { change.device_id, change.block_id; }) {
      of.emplace<gpu_memory::Prefetch>(state.gpu_memory, change.device_id, change.block_id);
    } else if constexpr (requires { change.device_id, change.block; }) {
      of.emplace<gpu_memory::Prefetch>(state.gpu_memory, change.device_id, change.block);
    }
  }
  void about_version(std::string_view model_id, const std::optional<registry::ModelVersion>& version) const {
    of.emplace<registry::Prefetch>(state.registry, model_id, version);
  }
};

Prefetch::Prefetch(const State& state, const Request& request) { std::visit(Finder{state, of_}, request.body); }
Prefetch::Prefetch(const State& state, const Event& event) { std::visit(Finder{state, of_}, event); }

void Prefetch::operator()(PrefetchStep step) {
  std::visit(
      [step](auto& of) {
        if constexpr (!std::is_same_v<decltype(of), std::monostate&>) of(step);
      },
      of_);
}

}  // namespace tensorforge::service
