#pragma once

#include <algorithm>
#include <array>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <utility>

#include "gpu_memory/slab.h"

namespace tensorforge::gpu_memory {

/// An ordered map of small keys that finds the first key which satisfies a condition, in O(log n).
///
/// It is a B+ tree whose inner nodes keep a summary of the items below each child, so that a search passes by every
/// subtree in which nothing can satisfy the condition. `Traits` says what that means:
///   Key, Value           trivially copyable; keys are ordered by <, with an == that agrees
///   Summary              trivially copyable
///   of(key, value) -> Summary
///   join(a, b) -> Summary: commutative, associative, join(a, a) = a
/// A condition is a predicate over summaries that holds for join(a, b) exactly when it holds for a or for b: "has this
/// bit set" where join is bitwise or, "is at most x" where join is the minimum.
///
/// A leaf has its items in no order: a new one goes behind the others, and the last takes the place of one that is
/// erased. So neither moves the rest, and a search reads the keys of a leaf in a row, without one load that waits for
/// another.
///
/// Nodes are merged with a neighbour when both together are half full or less, not kept at a strict minimum: the usual
/// bound on the height holds for sums of neighbours, and a map that shrinks and grows at one place does not thrash. An
/// item that has been alone since the map was empty needs no node: many maps of one item are cheap. Where a single leaf
/// is the whole tree, its summary is not computed anew when it loses an item: it may speak of some that were there,
/// which costs a search a look at that leaf.
///
/// Nodes come from a `Nodes`, which many trees may share and which outlives them: a tree that ends gives none back.
///
/// Threads: none.
template <class Traits>
class SummaryTree {
 public:
  using Key = typename Traits::Key;
  using Value = typename Traits::Value;
  using Summary = typename Traits::Summary;
  struct Item {
    Key key{};
    Value value{};
    bool operator==(const Item&) const = default;
  };

  SummaryTree() = default;
  SummaryTree(SummaryTree&& other) noexcept
      : root_(std::exchange(other.root_, Child{})),
        only_(other.only_),
        height_(std::exchange(other.height_, 0U)),
        size_(std::exchange(other.size_, 0U)) {}
  SummaryTree& operator=(SummaryTree&& other) noexcept {
    std::swap(root_, other.root_);
    std::swap(only_, other.only_);
    std::swap(height_, other.height_);
    std::swap(size_, other.size_);
    return *this;
  }

  std::size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }

  class Nodes;

  /// `key` must not be in the map.
  void insert(Nodes& nodes, const Key& key, const Value& value) {
    const Item item{key, value};
    if (size_ == 0) {
      root_ = {key, Traits::of(key, value), {}};
      only_ = value;
      size_ = 1;
      return;
    }
    if (!root_.node) {
      Leaf* const first = nodes.leaves.make();
      first->put(0, {root_.low, only_});
      root_.node = Node(first, 1);
    }
    Child right;
    if (insert_below(nodes, root_, height_, item, right)) {
      Inner* const grown = nodes.inners.make();
      grown->children[0] = root_;
      grown->children[1] = right;
      root_ = {root_.low, Traits::join(root_.summary, right.summary), Node(grown, 2)};
      ++height_;
    }
    ++size_;
  }

  /// Whether `key` was there.
  bool erase(Nodes& nodes, const Key& key) {
    if (size_ == 0) return false;
    if (!root_.node) {
      if (root_.low != key) return false;
      size_ = 0;
      return true;
    }
    if (height_ == 0 ? !take(root_, key) : erase_below(nodes, root_, height_, key) == Erased::Nothing) return false;
    --size_;
    while (height_ > 0 && root_.node.count() == 1) {
      const Child only = children(root_)[0];
      nodes.give_back(inner(root_));
      root_ = only;
      --height_;
    }
    if (size_ == 0) {
      assert(height_ == 0);
      nodes.give_back(leaf(root_));
      root_ = {};
    }
    return true;
  }

  /// The lowest item from `from` on for which `condition(of(item))` holds.
  template <class Condition>
  std::optional<Item> first(const Key& from, const Condition& condition) const {
    return first(&from, condition);
  }
  /// The lowest item of all for which it holds.
  template <class Condition>
  std::optional<Item> first_of_all(const Condition& condition) const {
    return first(nullptr, condition);
  }
  /// The lowest item from `from` on.
  std::optional<Item> first(const Key& from) const {
    return first(&from, [](const Summary&) { return true; });
  }
  /// The highest item.
  std::optional<Item> last() const {
    if (size_ == 0) return std::nullopt;
    if (!root_.node) return Item{root_.low, only_};
    Child child = root_;
    for (unsigned height = height_; height > 0; --height) child = children(child).back();
    const std::span<const Key> all = keys(child);
    return leaf(child)->item(static_cast<std::size_t>(std::max_element(all.begin(), all.end()) - all.begin()));
  }

 private:
  static constexpr std::size_t kCapacity = 32;

  /// A node, and how many items are in it: beside the way there, so that what puts one there touches no other.
  class Node {
   public:
    Node() = default;
    Node(void* node, std::size_t count) : word_(reinterpret_cast<std::uintptr_t>(node) | count) {}
    explicit operator bool() const { return word_ != 0; }
    template <class Kind>
    Kind* as() const {
      static_assert(alignof(Kind) > kCount);
      return reinterpret_cast<Kind*>(word_ & ~kCount);  // NOLINT(performance-no-int-to-ptr): it was one
    }
    std::size_t count() const { return word_ & kCount; }
    void set_count(std::size_t count) { word_ = (word_ & ~kCount) | count; }
    void add(std::size_t count) { word_ += count; }
    void remove(std::size_t count) { word_ -= count; }

   private:
    static constexpr std::uintptr_t kCount = 63;  // bits that no address of a node has
    std::uintptr_t word_{};
  };
  static_assert(kCapacity < 64);
  struct Child {
    Key low{};  ///< no key below is lower, and none of the child before is as high
    Summary summary{};
    Node node{};  ///< none: `low` is the only key
  };
  /// The keys of a leaf lie together: a search looks at them, and at the values only of what it may find.
  struct alignas(64) Leaf {
    std::array<Key, kCapacity> keys;
    std::array<Value, kCapacity> values;
    Item item(std::size_t at) const { return {keys[at], values[at]}; }
    void put(std::size_t at, const Item& item) {
      keys[at] = item.key;
      values[at] = item.value;
    }
  };
  struct alignas(64) Inner {
    std::array<Child, kCapacity> children;
  };

 public:
  class Nodes {
    friend SummaryTree;
    void give_back(Leaf* leaf) { leaves.destroy(leaf); }
    void give_back(Inner* inner) { inners.destroy(inner); }
    Slab<Leaf> leaves;
    Slab<Inner> inners;
  };

 private:
  static Leaf* leaf(const Child& child) { return child.node.template as<Leaf>(); }
  static Inner* inner(const Child& child) { return child.node.template as<Inner>(); }
  static std::span<const Key> keys(const Child& child) { return {leaf(child)->keys.data(), child.node.count()}; }
  static std::span<Child> children(const Child& child) { return {inner(child)->children.data(), child.node.count()}; }

  static Summary summary_of(const Leaf& leaf, std::size_t at) { return Traits::of(leaf.keys[at], leaf.values[at]); }
  static Summary summary_of(const Inner& inner, std::size_t at) { return inner.children[at].summary; }
  template <class Kind>
  static Summary join_all(const Node& node) {
    const Kind& items = *node.template as<Kind>();
    Summary all = summary_of(items, 0);
    for (std::size_t i = 1; i < node.count(); ++i) all = Traits::join(all, summary_of(items, i));
    return all;
  }
  /// The same where the items are some of those of which `before` is the join: it stops as soon as it has that.
  template <class Kind>
  static Summary join_again(const Node& node, const Summary& before) {
    const Kind& items = *node.template as<Kind>();
    Summary all = summary_of(items, 0);
    for (std::size_t i = 1; i < node.count() && all != before; ++i) all = Traits::join(all, summary_of(items, i));
    return all;
  }
  /// The child in which `key` is, or would be.
  static std::size_t child_for(std::span<const Child> children, const Key& key) {
    const auto above = std::upper_bound(children.begin() + 1, children.end(), key,
                                        [](const Key& k, const Child& child) { return k < child.low; });
    return static_cast<std::size_t>(above - children.begin()) - 1;
  }

  static void insert_at(Child& parent, std::size_t at, const Child& child) {
    Child* const items = children(parent).data();
    std::copy_backward(items + at, items + parent.node.count(), items + parent.node.count() + 1);
    items[at] = child;
    parent.node.add(1);
  }
  static void erase_at(Child& parent, std::size_t at) {
    Child* const items = children(parent).data();
    std::copy(items + at + 1, items + parent.node.count(), items + at);
    parent.node.remove(1);
  }

  /// How many items stay in a full node that is split. One that grows at its end is being filled in order: it stays
  /// nearly full.
  static std::size_t kept_in_split(bool grows_at_end) {
    return grows_at_end ? kCapacity - kCapacity / 8 : kCapacity / 2;
  }

  /// Puts `item` into the leaf of `parent`; true: it was split, and `right` is the new half.
  static bool put(Nodes& nodes, Child& parent, const Item& item, Child& right) {
    if (parent.node.count() < kCapacity) {
      leaf(parent)->put(parent.node.count(), item);
      parent.node.add(1);
      parent.summary = Traits::join(parent.summary, Traits::of(item.key, item.value));
      return false;
    }
    Leaf& full = *leaf(parent);
    std::array<Item, kCapacity> all;
    for (std::size_t i = 0; i < kCapacity; ++i) all[i] = full.item(i);
    const auto lower = [](const Item& a, const Item& b) { return a.key < b.key; };
    const std::size_t kept = kept_in_split(std::max_element(all.begin(), all.end(), lower)->key < item.key);
    std::nth_element(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(kept), all.end(), lower);
    Leaf* const rest = nodes.leaves.make();
    for (std::size_t i = 0; i < kept; ++i) full.put(i, all[i]);
    for (std::size_t i = kept; i < kCapacity; ++i) rest->put(i - kept, all[i]);
    parent.node.set_count(kept);
    right = {all[kept].key, {}, Node(rest, kCapacity - kept)};
    Child& home = item.key < right.low ? parent : right;
    leaf(home)->put(home.node.count(), item);
    home.node.add(1);
    parent.summary = join_all<Leaf>(parent.node);
    right.summary = join_all<Leaf>(right.node);
    return true;
  }
  /// Puts `child` at `at` into the inner node of `parent`; true: it was split, and `right` is the new half.
  static bool put(Nodes& nodes, Child& parent, std::size_t at, const Child& child, Child& right) {
    if (parent.node.count() < kCapacity) {
      insert_at(parent, at, child);
      parent.summary = Traits::join(parent.summary, child.summary);
      return false;
    }
    const std::size_t kept = kept_in_split(at == kCapacity);
    Inner* const rest = nodes.inners.make();
    const std::span<Child> all = children(parent);
    std::copy(all.begin() + static_cast<std::ptrdiff_t>(kept), all.end(), rest->children.begin());
    parent.node.set_count(kept);
    right = {all[kept].low, {}, Node(rest, kCapacity - kept)};
    if (at <= kept) {
      insert_at(parent, at, child);
    } else {
      insert_at(right, at - kept, child);
    }
    parent.summary = join_all<Inner>(parent.node);
    right.summary = join_all<Inner>(right.node);
    return true;
  }

  static bool insert_below(Nodes& nodes, Child& parent, unsigned height, const Item& item, Child& right) {
    if (item.key < parent.low) parent.low = item.key;
    if (height == 0) return put(nodes, parent, item, right);
    const std::size_t i = child_for(children(parent), item.key);
    Child half;
    if (insert_below(nodes, children(parent)[i], height - 1, item, half) && put(nodes, parent, i + 1, half, right)) {
      return true;
    }
    parent.summary = Traits::join(parent.summary, Traits::of(item.key, item.value));
    return false;
  }

  /// Takes `key` out of the leaf of `parent`, whose summary stays; whether it was there.
  static bool take(Child& parent, const Key& key) {
    const std::span<const Key> all = keys(parent);
    const auto found = std::ranges::find(all, key);
    if (found == all.end()) return false;
    Leaf& items = *leaf(parent);
    items.put(static_cast<std::size_t>(found - all.begin()), items.item(all.size() - 1));
    parent.node.remove(1);
    return true;
  }
  enum class Erased { Nothing, Unnoticed, Noticed };  ///< noticed: the parent has something to do
  static Erased erase_below(Nodes& nodes, Child& parent, unsigned height, const Key& key) {
    if (height == 0) return take(parent, key) ? summarise<Leaf>(parent) : Erased::Nothing;
    const std::size_t i = child_for(children(parent), key);
    const Erased below = erase_below(nodes, children(parent)[i], height - 1, key);
    if (below != Erased::Noticed) return below;
    if (height == 1) {
      shrink<Leaf>(nodes, parent, i);
    } else {
      shrink<Inner>(nodes, parent, i);
    }
    return summarise<Inner>(parent);
  }
  template <class Kind>
  static Erased summarise(Child& parent) {
    if (parent.node.count() == 0) return Erased::Noticed;
    const Summary before = parent.summary;
    parent.summary = join_again<Kind>(parent.node, before);
    return parent.summary == before && parent.node.count() > kCapacity / 4 ? Erased::Unnoticed : Erased::Noticed;
  }
  /// After child `i` lost something: drops it when empty, or merges it with a neighbour when both are small.
  template <class Kind>
  static void shrink(Nodes& nodes, Child& parent, std::size_t i) {
    const std::span<Child> all = children(parent);
    if (all[i].node.count() == 0) {
      nodes.give_back(all[i].node.template as<Kind>());
      erase_at(parent, i);
    } else if (i + 1 < all.size() && all[i].node.count() + all[i + 1].node.count() <= kCapacity / 2) {
      merge<Kind>(nodes, parent, i);
    } else if (i > 0 && all[i - 1].node.count() + all[i].node.count() <= kCapacity / 2) {
      merge<Kind>(nodes, parent, i - 1);
    }
  }
  static void append(Leaf& to, std::size_t count, const Leaf& from, std::size_t more) {
    std::copy_n(from.keys.begin(), more, to.keys.begin() + static_cast<std::ptrdiff_t>(count));
    std::copy_n(from.values.begin(), more, to.values.begin() + static_cast<std::ptrdiff_t>(count));
  }
  static void append(Inner& to, std::size_t count, const Inner& from, std::size_t more) {
    std::copy_n(from.children.begin(), more, to.children.begin() + static_cast<std::ptrdiff_t>(count));
  }
  template <class Kind>
  static void merge(Nodes& nodes, Child& parent, std::size_t i) {
    Child& left = children(parent)[i];
    const Child& right = children(parent)[i + 1];
    Kind* const moved = right.node.template as<Kind>();
    append(*left.node.template as<Kind>(), left.node.count(), *moved, right.node.count());
    left.node.add(right.node.count());
    left.summary = Traits::join(left.summary, right.summary);
    nodes.give_back(moved);
    erase_at(parent, i + 1);
  }

  template <class Condition>
  std::optional<Item> first(const Key* from, const Condition& condition) const {
    if (size_ == 0 || !condition(root_.summary)) return std::nullopt;
    if (root_.node) return first_below(root_, height_, from, condition);
    if (from != nullptr && root_.low < *from) return std::nullopt;
    return Item{root_.low, only_};
  }

  /// `from` is null where every key below is known to be in range.
  template <class Condition>
  static std::optional<Item> first_below(const Child& parent, unsigned height, const Key* from,
                                         const Condition& condition) {
    if (height == 0) return first_in(parent, from, condition);
    const std::span<Child> all = children(parent);
    for (std::size_t i = from == nullptr ? 0 : child_for(all, *from); i < all.size(); ++i, from = nullptr) {
      if (!condition(all[i].summary)) continue;
      // Only the first child can disappoint: the key that its summary speaks of may lie before `from`. (A leaf that is
      // the whole tree is nobody's child.)
      if (const auto found = first_below(all[i], height - 1, from, condition)) return found;
    }
    return std::nullopt;
  }
  template <class Condition>
  static std::optional<Item> first_in(const Child& parent, const Key* from, const Condition& condition) {
    const Leaf& items = *leaf(parent);
    const std::size_t count = parent.node.count();
    std::size_t lowest = count;
    for (std::size_t i = 0; i < count; ++i) {
      const Key& key = items.keys[i];
      if (from != nullptr && key < *from) continue;
      if (lowest != count && !(key < items.keys[lowest])) continue;
      if (condition(Traits::of(key, items.values[i]))) lowest = i;
    }
    if (lowest == count) return std::nullopt;
    return items.item(lowest);
  }

  Child root_{};
  Value only_{};  ///< of an item without a node
  unsigned height_{};
  std::size_t size_{};
};

}  // namespace tensorforge::gpu_memory
