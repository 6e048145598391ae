// SPDX-License-Identifier: Apache-2.0
public import ArgumentParser
public import Model

// Words of the model that are values of flags; the parser lists them when another one is given.
extension RestartPolicy: ExpressibleByArgument {}
extension EndpointMode: ExpressibleByArgument {}
extension ServiceMode: ExpressibleByArgument {}
