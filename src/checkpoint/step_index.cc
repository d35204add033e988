#include "checkpoint/step_index.h"

#include <algorithm>
#include <cassert>
#include <limits>

#include "checkpoint/projection.h"

namespace tensorforge::checkpoint {
namespace {

constexpr std::uint32_t kNoEpoch = std::numeric_limits<std::uint32_t>::max();

int height(const Node* node) { return node == nullptr ? 0 : node->link.height; }
std::uint32_t min_epoch(const Node* node) { return node == nullptr ? kNoEpoch : node->link.min_epoch; }

void update(Node& node) {
  node.link.height = static_cast<std::uint8_t>(1 + std::max(height(node.link.left), height(node.link.right)));
  node.link.min_epoch = std::min({node.epoch, min_epoch(node.link.left), min_epoch(node.link.right)});
}

Node* rotate_right(Node* top) {
  Node* const left = top->link.left;
  top->link.left = left->link.right;
  left->link.right = top;
  update(*top);
  update(*left);
  return left;
}

Node* rotate_left(Node* top) {
  Node* const right = top->link.right;
  top->link.right = right->link.left;
  right->link.left = top;
  update(*top);
  update(*right);
  return right;
}

/// The new top of a tree whose two subtrees are balanced and differ by at most 2 in height.
Node* balance(Node* top) {
  Node*& left = top->link.left;
  Node*& right = top->link.right;
  if (height(left) > height(right) + 1) {
    if (height(left->link.right) > height(left->link.left)) left = rotate_left(left);
    return rotate_right(top);
  }
  if (height(right) > height(left) + 1) {
    if (height(right->link.left) > height(right->link.right)) right = rotate_right(right);
    return rotate_left(top);
  }
  update(*top);
  return top;
}

Node* insert_below(Node* top, Node& node) {
  if (top == nullptr) return &node;
  Node*& side = place_of(node) < place_of(*top) ? top->link.left : top->link.right;
  side = insert_below(side, node);
  return balance(top);
}

/// Takes the first node out of the tree, into `first`; returns the rest.
Node* take_first(Node* top, Node*& first) {
  if (top->link.left == nullptr) {
    first = top;
    return top->link.right;
  }
  top->link.left = take_first(top->link.left, first);
  return balance(top);
}

Node* erase_below(Node* top, const Node& node) {
  assert(top != nullptr);
  if (top != &node) {
    Node*& side = place_of(node) < place_of(*top) ? top->link.left : top->link.right;
    side = erase_below(side, node);
    return balance(top);
  }
  if (top->link.right == nullptr) return top->link.left;
  Node* heir = nullptr;
  Node* const rest = take_first(top->link.right, heir);
  heir->link.left = top->link.left;
  heir->link.right = rest;
  return balance(heir);
}

const Node* last_below(const Node* top, std::uint64_t max_step, std::uint32_t max_epoch) {
  if (top == nullptr || top->link.min_epoch > max_epoch) return nullptr;
  if (top->step > max_step) return last_below(top->link.left, max_step, max_epoch);
  if (const Node* found = last_below(top->link.right, max_step, max_epoch); found != nullptr) return found;
  // From here on every step is in bounds, so the lowest epochs alone lead to an answer, without a second dead end.
  return top->epoch <= max_epoch ? top : last_below(top->link.left, max_step, max_epoch);
}

}  // namespace

void StepIndex::insert(Node& node) {
  node.link = {};
  update(node);
  root_ = insert_below(root_, node);
}

void StepIndex::erase(Node& node) { root_ = erase_below(root_, node); }

const Node* StepIndex::last(std::uint64_t max_step, std::uint32_t max_epoch) const {
  return last_below(root_, max_step, max_epoch);
}

}  // namespace tensorforge::checkpoint
