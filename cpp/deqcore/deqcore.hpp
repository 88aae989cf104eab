// SPDX-License-Identifier: Apache-2.0
// The front door: everything public.
#pragma once

#include "deqcore/adjoint/adjoint.hpp"
#include "deqcore/base/arena.hpp"
#include "deqcore/base/error.hpp"
#include "deqcore/base/interrupt.hpp"
#include "deqcore/base/question.hpp"
#include "deqcore/base/report.hpp"
#include "deqcore/base/rows.hpp"
#include "deqcore/base/stop.hpp"
#include "deqcore/base/version.hpp"
#include "deqcore/device/buffer.hpp"
#include "deqcore/device/cpu_queue.hpp"
#include "deqcore/device/map.hpp"
#include "deqcore/device/pool.hpp"
#include "deqcore/device/queues.hpp"
#include "deqcore/device/simd.hpp"
#include "deqcore/fixed_point/fixed_point.hpp"
#include "deqcore/fixed_point/methods.hpp"
#include "deqcore/maps/activation.hpp"
#include "deqcore/maps/dense.hpp"
