// SPDX-License-Identifier: Apache-2.0
// A user's map on a queue: any callable (Queue&, const Question<T>&, Rows<T> answer), referred to and not copied. It
// puts its work on the queue and fills `answer`, which does not overlap the question. It may return nothing, or an int:
// 0 is success, anything else ends the solve with status map_failed.
#pragma once

#include <memory>
#include <type_traits>

#include "deqcore/base/question.hpp"

namespace deqcore {

template <class Queue, class T>
class MapRef {
 public:
  template <class Map>
    requires std::is_invocable_v<Map&, Queue&, const Question<T>&, Rows<T>>
  MapRef(Map& map)  // NOLINT(google-explicit-constructor): a reference, made at the call
      : object_(const_cast<void*>(static_cast<const void*>(std::addressof(map)))),
        call_([](void* object, Queue& queue, const Question<T>& question, Rows<T> answer) -> int {
          Map& self = *static_cast<Map*>(object);
          if constexpr (std::is_void_v<std::invoke_result_t<Map&, Queue&, const Question<T>&, Rows<T>>>) {
            self(queue, question, answer);
            return 0;
          } else {
            return self(queue, question, answer);
          }
        }) {}

  int operator()(Queue& queue, const Question<T>& question, Rows<T> answer) const {
    return call_(object_, queue, question, answer);
  }

 private:
  void* object_;
  int (*call_)(void*, Queue&, const Question<T>&, Rows<T>);
};

}  // namespace deqcore
