#pragma once

#include <initializer_list>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace tensorforge::workflow {

/// Which state may follow which: a lifecycle as a list of pairs. A pair that is not listed is not allowed, and a state
/// may follow itself only where that is listed.
///
/// Threads: safe to read from any.
template <class S>
class TransitionTable {
 public:
  TransitionTable(std::initializer_list<std::pair<S, S>> transitions) : transitions_(transitions) {}

  bool can_transition(S from, S to) const {
    for (const auto& transition : transitions_) {
      if (transition == std::pair(from, to)) return true;
    }
    return false;
  }
  /// In the order given; empty: `from` is an end.
  std::vector<S> allowed_from(S from) const {
    std::vector<S> allowed;
    for (const auto& transition : transitions_) {
      if (transition.first == from) allowed.push_back(transition.second);
    }
    return allowed;
  }

 private:
  std::vector<std::pair<S, S>> transitions_;
};

/// A directed graph: where each node leads.
using Edges = std::map<std::string, std::vector<std::string>>;

/// The nodes of a shortest way, both ends included, breadth first; of two equally short ways the one that takes the
/// edge listed first. Empty: there is no way. From a node to itself it is that node alone. Cycles are fine.
std::vector<std::string> shortest_path(const Edges& edges, const std::string& from, const std::string& to);

}  // namespace tensorforge::workflow
