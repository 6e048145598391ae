// SPDX-License-Identifier: Apache-2.0
import CSeccomp
import Crypto
import GRPCNIOTransportHTTP2
import GRPCProtobuf
