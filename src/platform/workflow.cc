#include "platform/workflow.h"

#include <algorithm>
#include <deque>
#include <string_view>

namespace tensorforge::workflow {

std::vector<std::string> shortest_path(const Edges& edges, const std::string& from, const std::string& to) {
  std::map<std::string_view, std::string_view> reached_from = {{from, from}};
  std::deque<const std::string*> frontier = {&from};
  while (!frontier.empty() && !reached_from.contains(to)) {
    const std::string& node = *frontier.front();
    frontier.pop_front();
    const auto found = edges.find(node);
    if (found == edges.end()) continue;
    for (const std::string& next : found->second) {
      if (reached_from.emplace(next, node).second) frontier.push_back(&next);
    }
  }
  if (!reached_from.contains(to)) return {};

  std::vector<std::string> path = {to};
  while (path.back() != from) path.emplace_back(reached_from.at(path.back()));
  std::reverse(path.begin(), path.end());
  return path;
}

}  // namespace tensorforge::workflow
